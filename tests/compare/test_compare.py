from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simgap.compare.bootstrap import Estimate, accuracies, gap_explained, resample_weights, verdict
from simgap.compare.compare import compare, flat_metrics
from simgap.compare.parameters import CompareParameters
from simgap.compare.report import markdown_report, text_table
from simgap.compare.study import Study, read_study
from simgap.errors import SimgapError
from simgap.prune.split import Split, write_split

PARAMETERS = CompareParameters(resamples=500, seed=0, equivalence_margin=0.05)


def test_resamples_against_a_plain_bootstrap() -> None:
    correct = np.random.default_rng(1).random((3, 50)) < 0.6
    images, seeds = resample_weights(50, 40, (0,)), resample_weights(3, 40, (1,))
    found = accuracies(correct, images, seeds)
    for resample in range(40):
        counts_i = np.rint(images[resample] * 50).astype(int)
        counts_s = np.rint(seeds[resample] * 3).astype(int)
        drawn = [correct[s, i] for s in np.repeat(np.arange(3), counts_s) for i in np.repeat(np.arange(50), counts_i)]
        assert len(drawn) == 150
        assert found.resampled[resample] == pytest.approx(np.mean(drawn))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random, hits = np.random.default_rng(0), 0
    for trial in range(300):
        correct = random.random((1, 200)) < 0.7
        found = accuracies(correct, resample_weights(200, 400, (trial,)), np.ones((400, 1))).estimate()
        hits += found.low <= 0.7 <= found.high
    assert 0.90 <= hits / 300 <= 0.99


def test_pairing_by_image_narrows_a_difference() -> None:
    random = np.random.default_rng(0)
    first = random.random((1, 300)) < 0.5
    second = first ^ (random.random((1, 300)) < 0.05)
    shared, other, one = resample_weights(300, 800, (0,)), resample_weights(300, 800, (9,)), np.ones((800, 1))
    paired = accuracies(first, shared, one).minus(accuracies(second, shared, one))
    apart = accuracies(first, shared, one).minus(accuracies(second, other, one))
    assert paired.value == apart.value == pytest.approx(first.mean() - second.mean())
    assert paired.high - paired.low < 0.6 * (apart.high - apart.low)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.02, 0.03, "equivalent"),
        (-0.04, -0.01, "equivalent"),
        (-0.2, -0.06, "lower"),
        (0.01, 0.2, "higher"),
        (-0.2, 0.04, "inconclusive"),
        (-0.2, 0.2, "inconclusive"),
    ],
)
def test_verdicts(low: float, high: float, expected: str) -> None:
    assert verdict(Estimate((low + high) / 2, low, high), 0.05) == expected


def _of(rate: float, seed: int):
    correct = np.random.default_rng(seed).random((2, 400)) < rate
    return accuracies(correct, resample_weights(400, 500, (0,)), resample_weights(2, 500, (seed,)))


def test_the_share_of_a_gap_is_undefined_where_there_may_be_none() -> None:
    full, pruned, alone = _of(0.8, 1), _of(0.6, 2), _of(0.4, 3)
    found = gap_explained(full, pruned, alone)
    assert found is not None
    assert found.value == pytest.approx((full.value - pruned.value) / (full.value - alone.value))
    assert found.low < 0.5 < found.high
    assert gap_explained(full, pruned, _of(0.8, 4)) is None
    # The reference alone is better: there is no gap to explain.
    assert gap_explained(full, pruned, _of(0.95, 5)) is None


def _split(rule: str, kept: int, benchmarks: list[str], controls: str | None = None) -> Split:
    return Split(rule, {}, benchmarks, None, kept, 80, "", True, "x", controls)


@pytest.fixture
def study() -> Study:
    random = np.random.default_rng(0)
    splits = {
        "full": _split("full", 80, []),
        "imagenet": _split("random", 0, []),
        "pruned": _split("imagenet-like", 40, ["sketch"]),
        "control": _split("random", 40, []),
        "quarter": _split("dissimilar", 20, ["val", "sketch"]),
    }
    rates = {"full": 0.9, "imagenet": 0.2, "pruned": 0.4, "control": 0.8, "quarter": 0.9}
    benchmarks = ["val", "sketch"]
    correct = {(s, b): random.random((2, 200)) < rates[s] for s in splits for b in benchmarks}
    used = {"val": np.ones(200, bool), "sketch": np.arange(200) < 150}
    return Study(splits, 80, benchmarks, [0, 1], correct, used, {("full", "val", 10): 0.5})


def test_cells(study: Study) -> None:
    cells = compare(PARAMETERS, study)
    cell = cells["pruned", "sketch"]
    correct = study.correct["pruned", "sketch"]
    assert cell.marked == "used by the rule"
    assert cell.accuracy.value == correct.mean()
    assert cell.rule_queries is not None
    assert cell.held_out is not None
    assert cell.rule_queries.value == correct[:, :150].mean()
    assert cell.held_out.value == correct[:, 150:].mean()
    assert cell.minus_control is not None
    assert cell.minus_control.value == correct.mean() - study.correct["control", "sketch"].mean()
    assert cell.minus_control.high < 0
    assert cell.verdict_control == "lower"
    assert cells["pruned", "val"].marked == "held out"
    assert cells["pruned", "val"].held_out == cells["pruned", "val"].accuracy
    assert cells["quarter", "val"].held_out is None
    assert cells["full", "val"].minus_full is None
    assert cells["quarter", "val"].minus_control is None
    explained = cells["pruned", "sketch"].gap_explained
    assert explained is not None
    assert 0.5 < explained.value < 1


def test_a_comparison_is_reproducible_and_does_not_depend_on_other_splits(study: Study) -> None:
    first, again = compare(PARAMETERS, study), compare(PARAMETERS, study)
    assert first == again
    fewer = replace(study, splits={name: split for name, split in study.splits.items() if name != "imagenet"})
    assert compare(PARAMETERS, fewer)["pruned", "sketch"].minus_control == first["pruned", "sketch"].minus_control
    metrics = flat_metrics(study, first)
    assert metrics["pruned/sketch/accuracy"] == study.correct["pruned", "sketch"].mean()
    assert metrics["full/val/accuracy_10_shot"] == 0.5


def test_tables_show_every_split_and_mark_what_rules_used(study: Study) -> None:
    cells = compare(PARAMETERS, study)
    text = text_table(study, cells)
    line = next(line for line in text.splitlines() if line.startswith("pruned"))
    value = f"{100 * study.correct['pruned', 'sketch'].mean():.1f}*"
    assert line.split()[-1] == value
    report = markdown_report(PARAMETERS, study, cells)
    for name in study.splits:
        assert f"| {name} |" in report
    assert "equivalent" in report
    assert "degenerate" not in text + report


def test_a_split_that_keeps_too_little_is_flagged(study: Study) -> None:
    study.splits["pruned"] = _split("imagenet-like", 15, ["sketch"])
    cells = compare(PARAMETERS, study)
    flag = "pruned keeps 18.8% of full: too little to speak for the pool (degenerate)"
    assert text_table(study, cells).splitlines()[-1] == flag
    assert flag in markdown_report(PARAMETERS, study, cells)


def test_reading_a_study(tmp_path: Path) -> None:
    labels = [0, 1, 1]
    (tmp_path / "similarity" / "val").mkdir(parents=True)
    queries = pa.table({"label": pa.array(labels, pa.int32()), "used_by_rule": [True, True, False]})
    pq.write_table(queries, tmp_path / "similarity" / "val" / "queries.parquet")
    write_split(_split("full", 80, []), np.ones(80, bool), tmp_path / "splits" / "full")
    for seed, correct in ((0, [True, False, True]), (1, [True, True, True])):
        folder = tmp_path / "evaluations" / f"full-{seed}"
        folder.mkdir(parents=True)
        table = pa.table({"label": pa.array(labels, pa.int32()), "correct": correct, "correct_5_shot": correct})
        pq.write_table(table, folder / "val.parquet")
    arguments = (tmp_path / "splits", tmp_path / "similarity", tmp_path / "evaluations")
    found = read_study(["full"], [0, 1], ["val"], *arguments)
    assert found.correct["full", "val"].tolist() == [[True, False, True], [True, True, True]]
    assert found.few_shot["full", "val", 5] == pytest.approx(5 / 6)
    pq.write_table(queries.slice(0, 2), tmp_path / "similarity" / "val" / "queries.parquet")
    with pytest.raises(SimgapError, match="other images"):
        read_study(["full"], [0, 1], ["val"], *arguments)
