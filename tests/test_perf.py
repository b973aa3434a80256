"""The programs that measure run, on little."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from perf import prune, similarity


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
    options = ("--rows", "5000", "--reference-rows", "1000", "--benchmarks", "2", "--folder", str(tmp_path))
    run(prune, *options, "--json", str(tmp_path / "out.json"))
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["dissimilar"]["kept"] == content["random"]["kept"] == 2500
    for rule in ("imagenet-like", "dissimilar"):
        fewer, reference = content[f"{rule}, fewer rows"], content[f"{rule}, reference code's way"]
        assert fewer["kept"] == reference["kept"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
