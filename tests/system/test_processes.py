"""Check that training runs in as many processes as the params say, and that all of them end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import MODEL_CONFIG, REPOSITORY, write_pool
from safetensors.torch import load_file
from studies import call, put_params, start

from simgap.clip.model import WEIGHTS_FILE

OPTIONS = ("--pool", "pool", "--out", "embedder", "--metrics", "metrics.json")


def put_study(folder: Path, checkpoint_steps: int = 500, **changes: object) -> None:
    """Write a pool, and params that train the embedder on it."""
    write_pool(folder / "pool", 2, 11)
    (folder / "tiny.json").write_text(json.dumps(MODEL_CONFIG))
    toy = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    source = toy["embedder"]
    wanted = {"model": str(folder / "tiny.json"), "samples_seen": 48, "batch_size": 8, "micro_batch_size": 4}
    wanted |= {"learning_rate": 1e-4, "readers": 2, **changes}
    resources = {**toy["resources"], "train": {"workers": 0, "checkpoint_steps": checkpoint_steps}}
    put_params(folder, embedder={**source, "train": {**source["train"], **wanted}}, resources=resources)


@pytest.mark.slow
def test_the_embedder_is_the_same_from_one_process_and_from_two(tmp_path: Path) -> None:
    losses, weights = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        put_study(folder, processes=processes)
        finished = call(folder, "embedder", *OPTIONS)
        assert finished.returncode == 0, finished.stderr
        assert finished.stderr == ""
        losses.append(json.loads((folder / "metrics.json").read_text())["loss"])
        weights.append(load_file(folder / "embedder" / WEIGHTS_FILE))
        assert not any(path.is_dir() for path in (folder / "scratch").iterdir())
    alone, together = losses
    assert alone != together
    for (_, loss), (_, expected) in zip(together, alone, strict=True):
        assert loss == pytest.approx(expected, abs=1e-4)
    for name, weight in weights[0].items():
        assert weight.allclose(weights[1][name], atol=1e-4), name


@pytest.mark.slow
def test_an_error_in_the_processes_ends_the_stage_with_one_line(tmp_path: Path) -> None:
    put_study(tmp_path, processes=2, learning_rate=1e30)
    finished = call(tmp_path, "embedder", *OPTIONS)
    assert finished.returncode == 1
    # Each process prints the same line.
    assert set(finished.stderr.splitlines()) == {
        "error: embedder: at step 1 the loss is nan and the gradient norm is nan; lower train.learning_rate"
    }
    assert not (tmp_path / "embedder").exists()


def start_long_training(folder: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Start a stage that trains for long, and return it and its processes once they train."""
    put_study(folder, processes=2, samples_seen=8_000_000, checkpoint_steps=1)
    stage = start(folder, "embedder", *OPTIONS)
    while not list(folder.glob("scratch/*/checkpoint.pt")):
        assert stage.poll() is None, stage.stderr
        os.sched_yield()
    return stage, psutil.Process(stage.pid).children(recursive=True)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others(tmp_path: Path) -> None:
    stage, children = start_long_training(tmp_path)
    children[-1].kill()
    _, errors = stage.communicate(timeout=120)
    assert stage.returncode == 1
    assert "Traceback" not in errors
    assert "of 2 was killed (SIGKILL); " in errors.splitlines()[-1]
    assert not any(child.is_running() for child in children)


@pytest.mark.slow
def test_a_stage_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    stage, children = start_long_training(tmp_path)
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
