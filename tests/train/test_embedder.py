from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from simgap.clip.model import load
from simgap.core.errors import SimgapError
from simgap.params.embed import EmbedderParameters, PretrainedParameters
from simgap.params.resources import TrainResources
from simgap.train import embedder as module
from simgap.train.embedder import make_embedder

RESOURCES = TrainResources(workers=0, checkpoint_steps=100)


def parameters(**changes) -> EmbedderParameters:
    return EmbedderParameters(**{"train": None, "pretrained": None, "directory": None, "seed": 0, **changes})


def test_a_local_directory_is_checked_and_copied(model_folder: Path, tmp_path: Path) -> None:
    make_embedder(parameters(directory=str(model_folder)), RESOURCES, tmp_path, tmp_path / "out", tmp_path)
    assert load(tmp_path / "out").dim == 16
    with pytest.raises(SimgapError):
        make_embedder(parameters(directory=str(tmp_path)), RESOURCES, tmp_path, tmp_path / "other", tmp_path)
    assert not (tmp_path / "other").exists()


def test_unknown_weights_are_refused_before_any_download(tmp_path: Path) -> None:
    asked = parameters(pretrained=PretrainedParameters(model="ViT-B-32", tag="laion40m"))
    with pytest.raises(
        SimgapError, match=r"tag: ViT-B-32 has no pretrained weights 'laion40m'; choose from laion400m_e3"
    ):
        make_embedder(asked, RESOURCES, tmp_path, tmp_path / "out", tmp_path)
    asked = parameters(pretrained=PretrainedParameters(model="ViT-B-23", tag="openai"))
    with pytest.raises(SimgapError, match="model: 'ViT-B-23' is unknown; choose from ViT-B-32, "):
        make_embedder(asked, RESOURCES, tmp_path, tmp_path / "out", tmp_path)
    asked = parameters(pretrained=PretrainedParameters(model="ViT-S-32", tag="openai"))
    with pytest.raises(SimgapError, match="tag: ViT-S-32 has no pretrained weights 'openai'; choose another model"):
        make_embedder(asked, RESOURCES, tmp_path, tmp_path / "out", tmp_path)


@pytest.mark.parametrize(
    ("model", "tag", "quick_gelu"),
    [
        ("ViT-B-32", "openai", True),
        ("ViT-B-32", "laion400m_e32", True),
        ("ViT-B-16", "dfn2b", True),
        ("ViT-B-32-quickgelu", "laion400m_e32", True),
        ("ViT-B-32", "laion2b_s34b_b79k", False),
        ("ViT-B-16-plus-240", "laion400m_e32", False),
    ],
)
def test_the_activation_is_that_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, tag: str, quick_gelu: bool
) -> None:
    """The config of a name without "quickgelu" says GELU, even for weights that were trained with QuickGELU."""
    saved = []
    clip = SimpleNamespace(visual=SimpleNamespace(preprocess_cfg={}))
    monkeypatch.setattr(module.open_clip, "create_model", lambda name, pretrained: clip)
    monkeypatch.setattr(module, "save", lambda clip, config, out: saved.append(config["model_cfg"]["quick_gelu"]))
    make_embedder(
        parameters(pretrained=PretrainedParameters(model, tag)), RESOURCES, tmp_path, tmp_path / "out", tmp_path
    )
    assert saved == [quick_gelu]


def test_exactly_one_source() -> None:
    with pytest.raises(ValidationError, match="none is set"):
        parameters()
    parameters(directory="x")
