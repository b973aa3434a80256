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
    sizes = ("--rows", "300", "--queries", "40", "--dim", "16", "--tile-rows", "128", "--repeats", "1")
    printed = run(similarity, *sizes, "--json", str(tmp_path / "out.json"))
    assert "FAISS, three searches" in printed
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["rows"] == 300
    assert content["machine"]["cores"] >= 1
    assert all(len(seconds) == 1 for seconds in content["seconds"].values())


def test_prune(tmp_path: Path) -> None:
    options = ("--rows", "5000", "--reference-rows", "1000", "--benchmarks", "2", "--folder", str(tmp_path))
    run(prune, *options, "--json", str(tmp_path / "out.json"))
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["dissimilar"]["kept"] == content["random"]["kept"] == 2500
    for rule in ("imagenet-like", "dissimilar"):
        fewer, reference = content[f"{rule}, fewer rows"], content[f"{rule}, reference code's way"]
        assert fewer["kept"] == reference["kept"]
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
