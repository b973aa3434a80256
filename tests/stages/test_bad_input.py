"""Every stage refuses bad params before it works, with one line and nothing written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, write_benchmark
from studies import ENVIRONMENT

STAGES = sorted(path.stem for path in (REPOSITORY / "stages").glob("*.py") if path.stem != "__init__")
LIGHT = [name for name in STAGES if name.startswith("prune") or name in ("copy", "profile", "similarity")]


def call(folder: Path, stage: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{REPOSITORY}", "DVC_ROOT": str(folder)}
    command = [sys.executable, "-m", f"stages.{stage}", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def put_params(folder: Path, **changes: object) -> None:
    content = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    shutil.copytree(REPOSITORY / "presets" / "models", folder / "presets" / "models")


def options_of(stage: str) -> list[str]:
    text = (REPOSITORY / "stages" / f"{stage}.py").read_text()
    names = [part.split('"')[0] for part in text.split('@click.option("')[1:]]
    values = {"--set": "pool", "--seed": "0", "--name": "toy", "--split": "full"}
    return [part for name in names for part in (name, values.get(name, f"out/{name[2:]}"))]


@pytest.mark.parametrize("stage", LIGHT)
def test_a_misspelt_parameter_ends_every_stage(stage: str, tmp_path: Path) -> None:
    put_params(tmp_path, treshold=0.1)
    finished = call(tmp_path, stage, *options_of(stage))
    assert finished.returncode == 1
    assert finished.stderr == "error: params.yaml: treshold is unknown; did you mean 'threshold'?\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml", "presets"]


def test_light_stages_import_nothing_heavy() -> None:
    heavy = "{'torch', 'open_clip', 'mlflow', 'faiss'}"
    for stage in LIGHT:
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


def test_a_benchmark_with_fewer_tars_than_it_says(tmp_path: Path) -> None:
    put_params(tmp_path)
    write_benchmark(tmp_path / "val", [0, 1], ["cat", "dog"])
    (tmp_path / "val" / "test" / "nshards.txt").write_text("3")
    options = ["--set", "benchmark", "--data", "val", "--embedder", "e", "--out", "out", "--metrics", "m.json"]
    finished = call(tmp_path, "embed", *options)
    assert finished.returncode == 1
    assert finished.stderr == "error: val/test/1.tar: no such shard, though nshards.txt says 3\n"
    assert not (tmp_path / "out").exists()
