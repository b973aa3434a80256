from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from simgap.core.errors import SimgapError
from simgap.store.estimates import Estimate, Metric
from simgap.store.split import Split
from simgap.store.study import Folder, Study
from simgap.store.tables import estimate_of, read_table, write_table
from simgap.store.verdicts import judge_effect, judge_gap_explained, judge_match

FULL = Split("full", {}, [], None, 80, 80, "", True, "rows", None)
SPLITS = {
    "full": FULL,
    "pruned": replace(FULL, rule="imagenet-like", benchmarks=["sketch"], threshold=0.02, kept=40),
    "control": replace(FULL, rule="random", parameters={"size_of": "pruned", "keep": 1.0}, kept=40, controls="pruned"),
    "again": replace(FULL, rule="random", parameters={"size_of": "pruned", "keep": 1.0}, kept=40, controls="pruned"),
    "counted": replace(FULL, rule="random", parameters={"size_of": "pruned", "keep": 7}, kept=7),
    "reference-only": replace(FULL, rule="random", parameters={"size_of": "full", "keep": 0}, kept=0),
}
COMPARED = {
    "pruned/val/accuracy": 0.5, "pruned/val/accuracy/low": 0.4, "pruned/val/accuracy/high": 0.6,
    "pruned/val/minus_control": -0.1, "pruned/val/minus_control/low": -0.2, "pruned/val/minus_control/high": 0.1,
    "pruned/val/minus/again": 0.1, "pruned/val/minus/again/low": 0.05, "pruned/val/minus/again/high": 0.2,
    "pruned/val/verdict_control": "inconclusive", "pruned/val/verdict/again": "higher",
    "pruned/sketch/accuracy": 0.5,
}  # fmt: skip


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    for name, split in SPLITS.items():
        write(tmp_path / "prune" / f"{name}.json", {**asdict(split), "dropped/pruned": 80 - split.kept})
    write(tmp_path / "prune" / "full.json", asdict(FULL))
    write(tmp_path / "compare" / "compare.json", COMPARED)
    return tmp_path


def read(metrics: Path, *runs: str) -> Study:
    return Study(Folder(), list(runs or SPLITS), ["val", "sketch"], [0], str(metrics))


def test_an_estimate_names_its_file_and_keys(metrics: Path) -> None:
    file = f"{metrics}/compare/compare.json"
    found = read(metrics).accuracy("pruned", "val")
    assert found == Estimate(0.5, 0.4, 0.6, file, "pruned/val/accuracy")
    assert found.metrics == (
        Metric(0.5, file, "pruned/val/accuracy"),
        Metric(0.4, file, "pruned/val/accuracy/low"),
        Metric(0.6, file, "pruned/val/accuracy/high"),
    )


def test_differences_to_every_control(metrics: Path) -> None:
    study = read(metrics)
    assert study.controls_of("pruned") == ["control", "again"]
    values = [study.minus_control("pruned", "val", control) for control in study.controls_of("pruned")]
    assert [found.value for found in values if found] == [-0.1, 0.1]
    assert [study.verdict_control("pruned", "val", control) for control in ("control", "again")] == [
        "inconclusive",
        "higher",
    ]
    assert study.minus_full("pruned", "val") is None
    assert study.gap_explained("pruned", "val") is None


def test_what_splits_are_to_each_other(metrics: Path) -> None:
    study = read(metrics)
    assert (study.full(), study.reference_only()) == ("full", "reference-only")
    assert study.rule_use("pruned", "sketch") == "used by the rule"
    assert study.rule_use("pruned", "val") == "held out"
    assert study.splits_by_rule("random") == ["control", "again", "counted", "reference-only"]
    fewer = read(metrics, "pruned")
    assert (fewer.full(), fewer.reference_only(), fewer.controls_of("pruned")) == (None, None, [])


def test_the_threshold_that_a_split_depends_on(metrics: Path) -> None:
    # The pruned split need not be trained.
    study = read(metrics, "full", "control", "counted", "reference-only")
    assert [study.threshold_of(split) for split in ("pruned", "control")] == [0.02, 0.02]
    assert [study.threshold_of(split) for split in ("full", "counted", "reference-only")] == [None, None, None]


def test_rows(metrics: Path) -> None:
    study = read(metrics)
    assert (study.rows_kept("pruned").value, study.rows_pruned("pruned").value) == (40, 40)
    assert study.rows_pruned("full") == Metric(0, f"{metrics}/prune/full.json", "dropped/pruned")


def test_what_is_missing_is_named_with_its_file(metrics: Path) -> None:
    study = read(metrics)
    with pytest.raises(
        SimgapError, match=r"compare\.json: the file has no pruned/sketch/accuracy/low; run the stage again"
    ):
        study.accuracy("pruned", "sketch")
    with pytest.raises(SimgapError, match=r"compare\.json: the file has no full/val/accuracy; run the stage again"):
        study.accuracy("full", "val")
    with pytest.raises(SimgapError, match=r"full-0\.json: no such file"):
        study.model_accuracy("full", 0, "val")
    write(metrics / "prune" / "pruned.json", {"rule": "imagenet-like"})
    with pytest.raises(SimgapError, match=r"pruned\.json: the file has no parameters"):
        read(metrics)


@pytest.mark.parametrize(
    ("low", "high", "effect", "share"),
    [
        (0.1, 0.4, "higher", "less than half"),
        (-0.4, -0.1, "lower", "less than half"),
        (-0.1, 0.6, "inconclusive", "inconclusive"),
        (0.6, 0.7, "higher", "more than half"),
    ],
)
def test_verdicts_of_one_interval(low: float, high: float, effect: str, share: str) -> None:
    found = Estimate((low + high) / 2, low, high)
    assert (judge_effect(found), judge_gap_explained(found)) == (effect, share)


def test_a_split_matches_only_if_it_is_nowhere_worse() -> None:
    assert judge_match(["equivalent", "higher"]) == "matches"
    assert judge_match(["equivalent", "inconclusive"]) == "inconclusive"
    assert judge_match(["higher", "inconclusive", "lower"]) == "does not match"


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [{"split": "a, b", "value": 1 / 3, "low": 0.25, "high": 0.5, "images": 7, "spread": None}]
    write_table(rows, tmp_path / "t.csv")
    (row,) = read_table(tmp_path / "t.csv")
    assert row == {"split": "a, b", "value": "0.333333333", "low": "0.25", "high": "0.5", "images": "7", "spread": ""}
    assert estimate_of(row) == Estimate(0.333333333, 0.25, 0.5)
    write_table([], tmp_path / "empty.csv")
    assert not (tmp_path / "empty.csv").exists()
    assert read_table(tmp_path / "empty.csv") == []
