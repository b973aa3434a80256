"""The programs that measure run, on little."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from perf import deduplicate, evaluate, prune, similarity


def run(program, *options: str) -> str:
    result = CliRunner().invoke(program.main, list(options), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_similarity(tmp_path: Path) -> None:
    sizes = ("--rows", "300", "--queries", "40", "--dim", "16", "--repeats", "1", "--disk-rows", "500")
    printed = run(similarity, *sizes, "--folder", str(tmp_path), "--json", str(tmp_path / "out.json"))
    assert "FAISS, three searches" in printed
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["rows"] == 300
    assert content["machine"]["cores"] >= 1
    assert all(len(seconds) == 1 for seconds in content["seconds"].values())
    assert content["from_disk"]["rows"] == 500


def test_prune(tmp_path: Path) -> None:
    options = ("--rows", "5000", "--keep", "2000", "--reference-rows", "1000", "--benchmarks", "2")
    printed = run(prune, *options, "--folder", str(tmp_path), "--json", str(tmp_path / "out.json"))
    assert "memory ratio" in printed
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["machine"]["cores"] >= 1
    assert content["rules"]["dissimilar"]["kept"] == content["rules"]["random"]["kept"] == 2000
    for rule, sides in content["side_by_side"].items():
        assert sides["simgap"]["rows"] == sides["reference"]["rows"] == 1000
        assert sides["simgap"]["kept"] == sides["reference"]["kept"], rule
        assert all(ratio > 0 for ratio in sides["ratios"].values())
    assert set(content["side_by_side"]) == {"imagenet-like", "dissimilar"}
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.slow
def test_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLIP_benchmark is stood in for; `tests/evaluate/test_parity.py` runs it."""
    drawn: list[Path] = []

    def stand_in(command: Path, model: Path, benchmarks: list[Path], out: Path) -> evaluate.Figures:
        assert command == tmp_path / "environment"
        assert (model / "open_clip_config.json").is_file()
        drawn.extend(benchmarks)
        return {path.name: {"acc1": 0.5, "acc5": 0.5, "mean_per_class_recall": 0.5} for path in benchmarks}

    monkeypatch.setattr(evaluate.clip_benchmark, "install", lambda folder: folder)
    monkeypatch.setattr(evaluate.clip_benchmark, "evaluate", stand_in)
    options = ("--images", "8", "--repeats", "1", "--environment", str(tmp_path / "environment"))
    printed = run(evaluate, *options, "--json", str(tmp_path / "out.json"))
    assert "CLIP_benchmark takes" in printed
    content = json.loads((tmp_path / "out.json").read_text())
    assert [path.name for path in drawn] == ["val", "sketch", "r", "a"]
    assert set(content["figures"]["simgap"]) == {path.name for path in drawn}
    assert all(len(seconds) == 1 for seconds in content["seconds"].values())
    assert 0 < content["largest_difference"] <= 0.5


def test_deduplicate(tmp_path: Path) -> None:
    sizes = ("--quality-rows", "600", "--quality-clusters", "3", "--rows", "500", "--clusters", "5", "--dim", "64")
    options = ("--previous-rows", "300", "--block-rows", "100", "--folder", str(tmp_path))
    printed = run(deduplicate, *sizes, *options, "--json", str(tmp_path / "out.json"))
    assert "within clusters, float64" in printed
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["float64_gives_the_same"]
    quality = content["quality"]
    assert quality["dropped_without_a_lower_neighbour"] == 0
    assert quality["dropped"] <= quality["dropped_by_all_pairs"]
    assert 0 < quality["recall_of_planted_pairs"] <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
