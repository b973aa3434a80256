"""Undocumented parts of other packages that simgap uses exist in the installed versions.

Such parts may change without notice, so an upgrade must fail here and not in the middle of a study.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib import resources
from typing import Any

import open_clip
import pytest
import torch
import webdataset
from conftest import REPOSITORY
from open_clip.transform import AugmentationCfg, PreprocessCfg, image_transform_v2
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

# Names by module. Attributes that are used without an import statement are listed too.
USED = {
    "alembic.util.exc": {"CommandError"},
    "dvc_data.index": {"DataIndexDirError"},
    "open_clip": {
        "CLIP", "ClipLoss", "CustomTextCLIP", "create_model", "get_pretrained_cfg", "get_tokenizer",
        "list_pretrained_tags_by_model", "load_checkpoint",
    },
    "open_clip.loss": {"ClipLoss"},
    "open_clip.transform": {"AugmentationCfg", "PreprocessCfg", "image_transform_v2"},
    "open_clip.zero_shot_metadata": {"IMAGENET_CLASSNAMES", "OPENAI_IMAGENET_TEMPLATES"},
    "torch": {"default_generator"},
    "torch.distributed": {"DistError"},
    "torch.distributed.elastic.multiprocessing": {"DefaultLogsSpecs"},
    "torch.distributed.elastic.multiprocessing.errors": {"ChildFailedError"},
    "torch.distributed.launcher.api": {"LaunchConfig", "elastic_launch"},
    "torch.utils.flop_counter": {"FlopCounterMode"},
    "webdataset": {"tariterators"},
}  # fmt: skip
# Packages without any documented module.
PRIVATE_PACKAGES = {"dvc_data"}


def imports() -> Iterator[tuple[str, str]]:
    """Yield the module and the name of every `from module import name`, and of every `import module` with an empty name."""
    for folder in ("src", "stages", "perf"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    yield from ((str(node.module), alias.name) for alias in node.names)
                elif isinstance(node, ast.Import):
                    yield from ((alias.name, "") for alias in node.names)


def is_private(module: str, name: str) -> bool:
    """Return whether an import has a component with a leading underscore, or is from a package without documentation."""
    parts = [*module.split("."), name]
    # `__future__` and the like are public.
    return parts[0] in PRIVATE_PACKAGES or any(part.startswith("_") and not part.startswith("__") for part in parts)


def test_every_private_import_is_listed() -> None:
    found = set(imports())
    private = {(module, name) for module, name in found if is_private(module, name)}
    assert ("dvc_data.index", "DataIndexDirError") in private
    # These modules are undocumented as a whole, unlike open_clip and torch themselves.
    undocumented = {(module, name) for module, name in found if name and module in USED.keys() - {"torch"}}
    missing = {(module, name) for module, name in private | undocumented if name not in USED.get(module, set())}
    assert not missing


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in USED.items() for name in sorted(names)]
)
def test_the_name_exists(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (open_clip.ClipLoss, {"local_loss", "gather_with_grad", "rank", "world_size"}),
        (open_clip.create_model, {"pretrained", "load_weights"}),
        (image_transform_v2, {"cfg", "is_train", "aug_cfg"}),
        (webdataset.tariterators.group_by_keys, {"handler"}),
        (elastic_launch, {"config", "entrypoint"}),
        (
            LaunchConfig,
            {
                "min_nodes", "max_nodes", "nproc_per_node", "logs_specs", "run_id", "rdzv_backend", "rdzv_endpoint",
                "max_restarts",
            },
        ),
    ],
)  # fmt: skip
def test_the_function_takes_the_arguments(function: Callable[..., Any], names: set[str]) -> None:
    assert names <= set(inspect.signature(function).parameters)


def test_open_clip_has_its_configs_and_fields() -> None:
    configs = resources.files("open_clip") / "model_configs"
    assert (configs / "ViT-B-16-plus-240.json").is_file()
    expected = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}
    assert {field.name for field in fields(PreprocessCfg)} == expected
    assert "scale" in {field.name for field in fields(AugmentationCfg)}
    assert "quick_gelu" in open_clip.get_pretrained_cfg("ViT-B-32", "openai")


@pytest.mark.parametrize("tower", ["ViT-S-32", "RN50"])
def test_models_of_open_clip_have_the_attributes(tower: str) -> None:
    with torch.device("meta"):
        clip = open_clip.CLIP(**open_clip.get_model_config(tower))
    assert hasattr(clip.visual, "image_size")
    assert callable(clip.set_grad_checkpointing)
    assert clip.context_length == 77
    assert clip.logit_scale.ndim == 0


def test_timm_has_the_synsets_of_imagenet() -> None:
    folder = resources.files("timm.data") / "_info"
    counts = {"imagenet_synsets.txt": 1000, "imagenet_a_synsets.txt": 200, "imagenet_r_synsets.txt": 200}
    for file, count in counts.items():
        synsets = (folder / file).read_text("utf-8").split()
        assert len(set(synsets)) == len(synsets) == count
        assert all(len(synset) == 9 and synset[0] == "n" for synset in synsets)


def test_a_failed_process_of_torchrun_names_its_exit_code() -> None:
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=-9, error_file="none")
    rank, first = ChildFailedError("name", {3: failure}).get_first_failure()
    assert (rank, first.exitcode, first.signal_name()) == (3, -9, "SIGKILL")
