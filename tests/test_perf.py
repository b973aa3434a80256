"""The programs that measure run, on little."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from perf import deduplicate, prune, similarity


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
