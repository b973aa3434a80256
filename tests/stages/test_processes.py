"""A stage that trains does so in as many processes as the params say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conftest import MODEL_CONFIG, REPOSITORY, write_pool
from safetensors.torch import load_file
from studies import call, put_params

from simgap.embed.model import WEIGHTS_FILE


@pytest.mark.slow
def test_the_embedder_is_the_same_from_one_process_and_from_two(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool", 2, 11)
    (tmp_path / "tiny.json").write_text(json.dumps(MODEL_CONFIG))
    source = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())["embedder"]
    losses, weights = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        changes = {"model": str(tmp_path / "tiny.json"), "samples_seen": 48, "batch_size": 8, "micro_batch_size": 4}
        changes |= {"learning_rate": 1e-4, "workers": 0, "processes": processes, "readers": 2}
        put_params(folder, embedder={**source, "train": {**source["train"], **changes}})
        options = ["--pool", str(tmp_path / "pool"), "--out", "embedder", "--metrics", "metrics.json"]
        finished = call(folder, "embedder", *options)
        assert finished.returncode == 0, finished.stderr
        losses.append(json.loads((folder / "metrics.json").read_text())["loss"])
        weights.append(load_file(folder / "embedder" / WEIGHTS_FILE))
        assert not any(path.is_dir() for path in (folder / "scratch").iterdir())
    alone, together = losses
    assert alone != together
    for (_, loss), (_, expected) in zip(together, alone, strict=True):
        assert loss == pytest.approx(expected, abs=1e-4)
    for name, weight in weights[0].items():
        assert weight.allclose(weights[1][name], atol=1e-4), name
