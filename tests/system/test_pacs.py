"""Run the preset of real photographs with a short training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from studies import check_against_naive, repository, run

from simgap.clip.model import load
from simgap.core.files import read_json

pytestmark = pytest.mark.slow


def test_photographs_through_the_prunes_and_one_training(pacs: Path, tmp_path: Path) -> None:
    def brief(content: dict[str, Any]) -> None:
        content["copy"]["pacs96"]["source"] = str(pacs)
        content["embedder"]["train"]["samples_seen"] = 3200
        content["train"]["samples_seen"] = 1280
        content["repeats"]["seeds"] = [0]

    folder = repository(tmp_path / "study", "pacs", brief)
    targets = rules_and_profiles(folder)
    run(folder, "dvc", "repro", *targets, "train@sketch-pruned-0", "ground-truth@pacs")
    check_against_naive(folder)
    load(folder / "models" / "sketch-pruned-0")
    embedded = read_json(folder / "metrics" / "embed" / "pool.json")
    assert embedded["read"] == embedded["kept"] == 5780
    trained = read_json(folder / "metrics" / "train" / "sketch-pruned-0.json")
    split = read_json(folder / "metrics" / "prune" / "sketch-pruned.json")
    assert trained["kept_rows"] == split["kept"]
    assert trained["reference_rows"] == 250
    truth = read_json(folder / "metrics" / "ground-truth" / "pacs.json")
    assert 200 < truth["deduplication/true_duplicates"] <= 228


def rules_and_profiles(folder: Path) -> list[str]:
    stages = run(folder, "dvc", "stage", "list", "--name-only").split()
    return [stage for stage in stages if stage.startswith(("prune-", "profile-"))]


def test_a_changed_dataset_is_not_copied(pacs: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    from studies import ENVIRONMENT

    def leave_out_folders(content: dict[str, Any]) -> None:
        content["copy"]["pacs96"].update(source=str(pacs), folders=["imagenet_like"])

    folder = repository(tmp_path / "study", "pacs", leave_out_folders)
    command = [sys.executable, "-m", "stages.copy", "--name", "pacs96", "--out", "data/worlds/pacs96"]
    finished = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: params.yaml: copy.pacs96.sha256 is ")
    assert list((folder / "data" / "worlds").iterdir()) == []
