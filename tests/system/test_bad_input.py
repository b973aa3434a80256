"""Check that every stage refuses bad input with a one-line error, and writes nothing."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import MODEL_CONFIG, REPOSITORY, write_benchmark, write_pool
from studies import ENVIRONMENT, call, put_params

STAGES = sorted(path.stem for path in (REPOSITORY / "stages").glob("*.py") if path.stem != "__init__")
LIGHT = [name for name in STAGES if name.startswith("prune") or name in ("copy", "manifest", "profile", "similarity")]


def options_of(stage: str) -> list[str]:
    command = importlib.import_module(f"stages.{stage}").main
    values = {"kind": "pool", "seed": "0", "name": "toy", "rule": "random"}
    # The split of a training is a name, that of a profile is a folder.
    names = [(option.name, option.opts[0]) for option in command.params]
    values |= {"split": "full"} if stage == "train" else {}
    return [part for name, flag in names for part in (flag, values.get(name, f"out/{name}"))]


@pytest.mark.parametrize("stage", LIGHT)
def test_every_stage_refuses_a_misspelt_parameter(stage: str, tmp_path: Path) -> None:
    put_params(tmp_path, treshold=0.1)
    finished = call(tmp_path, stage, *options_of(stage))
    assert finished.returncode == 1
    assert finished.stderr == "error: params.yaml: treshold is unknown; did you mean 'threshold'?\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml", "presets"]


def test_light_stages_import_nothing_heavy() -> None:
    heavy = "{'torch', 'open_clip', 'mlflow', 'faiss'}"
    # prune_matched reads shards with webdataset, which imports torch.
    for stage in set(LIGHT) - {"prune_matched"}:
        code = f"import sys, stages.{stage}; print({heavy} & set(sys.modules))"
        finished = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, check=True
        )
        assert finished.stdout == "set()\n", stage


def test_a_missing_shard_folder(tmp_path: Path) -> None:
    put_params(tmp_path)
    finished = call(tmp_path, "embedder", "--pool", "nowhere", "--out", "out", "--metrics", "m.json")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        "error: nowhere: no such folder; it should hold webdataset shards (00000.tar, ...)"
    )
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "m.json").exists()


def test_a_benchmark_with_fewer_tars_than_nshards_says(tmp_path: Path) -> None:
    put_params(tmp_path)
    write_benchmark(tmp_path / "val", [0, 1], ["cat", "dog"])
    (tmp_path / "val" / "test" / "nshards.txt").write_text("3")
    options = ["--set", "benchmark", "--data", "val", "--embedder", "e", "--out", "out", "--metrics", "m.json"]
    finished = call(tmp_path, "embed", *options)
    assert finished.returncode == 1
    assert finished.stderr == (
        "error: val/test/1.tar: no such shard, though nshards.txt says 3; restore it or correct nshards.txt\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["embedder", "train", "prune", "copy"])
def test_every_stage_refuses_a_model_that_open_clip_does_not_know(stage: str, tmp_path: Path) -> None:
    """The error comes before shards are read, and before processes start that would each print it."""
    content = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    put_params(tmp_path, train={**content["train"], "model": "vit-b-32-quikgelu", "processes": 2})
    finished = call(tmp_path, stage, *options_of(stage))
    assert finished.returncode == 1
    assert finished.stderr.startswith(
        "error: params.yaml: train.model: 'vit-b-32-quikgelu' is unknown; choose from ViT-B-32-quickgelu, "
    )
    assert finished.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml", "presets"]


def test_an_embedder_whose_config_lacks_the_activation(model_folder: Path, tmp_path: Path) -> None:
    put_params(tmp_path)
    write_pool(tmp_path / "pool", 1, 2)
    config = {**MODEL_CONFIG, "model_cfg": {k: v for k, v in MODEL_CONFIG["model_cfg"].items() if k != "quick_gelu"}}
    embedder = tmp_path / "embedder"
    embedder.mkdir()
    for file in model_folder.iterdir():
        (embedder / file.name).write_bytes(file.read_bytes())
    (embedder / "open_clip_config.json").write_text(json.dumps(config))
    options = ["--set", "pool", "--data", "pool", "--embedder", "embedder", "--out", "out", "--metrics", "m.json"]
    finished = call(tmp_path, "embed", *options)
    assert finished.returncode == 1
    assert finished.stderr == (
        "error: embedder/open_clip_config.json: model_cfg.quick_gelu is missing; it must be true or false\n"
    )
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "m.json").exists()
