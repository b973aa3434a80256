from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgap.compare.bootstrap import (
    DIFFERENCE,
    RATE,
    accuracy,
    estimate,
    estimate_if_defined,
    gap_explained,
    group_accuracies,
    images_of_slope,
    mean_per_class_recall,
    resample_counts,
    seed_weights,
    slope,
)
from simgap.compare.compare import Comparison, compare
from simgap.compare.leaks import Leaks
from simgap.compare.metrics import flat_metrics
from simgap.compare.outcomes import Outcomes, read_outcomes
from simgap.compare.report import finished_study, markdown_report, text_table
from simgap.compare.resamples import ALL, Resamples
from simgap.compare.tables import long_tables, write_tables
from simgap.core.errors import SimgapError
from simgap.params.compare import CompareParameters
from simgap.store.estimates import Estimate
from simgap.store.split import Split, write_split
from simgap.store.verdicts import HELD_OUT, USED, judge_difference

PARAMETERS = CompareParameters(resamples=500, seed=0, equivalence_margin=0.05, in_distribution_benchmark="val")
ONE_SEED = np.ones((401, 1))


def stored(value: float) -> float:
    """Return a number as files keep it, with nine significant digits."""
    return float(f"{value:.9g}")


def report_of(outcomes: Outcomes, comparison: Comparison) -> str:
    return markdown_report(PARAMETERS, finished_study(outcomes, comparison), long_tables(outcomes, comparison))


def text_of(outcomes: Outcomes, comparison: Comparison) -> str:
    return text_table(finished_study(outcomes, comparison))


def drawn(outcomes: np.ndarray, images: np.ndarray, seeds: np.ndarray) -> list[tuple[int, bool]]:
    """Return a resample as a list: (image, outcome) of every drawn seed and drawn image."""
    return [
        (image, bool(outcomes[seed, image]))
        for seed in np.repeat(np.arange(len(seeds)), seeds.astype(int))
        for image in np.repeat(np.arange(len(images)), images.astype(int))
    ]


def test_values_against_a_plain_bootstrap() -> None:
    random = np.random.default_rng(1)
    correct, labels, x = random.random((3, 50)) < 0.6, random.integers(0, 4, 50), random.random(50)
    images, seeds = resample_counts(50, 40, (0,)), resample_counts(3, 40, (1,))
    top1, recall = accuracy(correct, images, seeds), mean_per_class_recall(correct, labels, images, seeds)
    groups = group_accuracies(correct, labels, 5, images, seeds)
    slopes = slope(correct, x, images, seeds)
    assert images.shape == (41, 50)
    assert images[0].tolist() == [1] * 50
    assert images.sum(axis=1).tolist() == [50] * 41
    for resample in range(41):
        pairs = drawn(correct, images[resample], seeds[resample])
        assert len(pairs) == 150
        assert top1[resample] == pytest.approx(np.mean([right for _, right in pairs]))
        by_class = [[right for image, right in pairs if labels[image] == label] for label in range(5)]
        assert recall[resample] == pytest.approx(np.mean([np.mean(rights) for rights in by_class if rights]))
        for label, rights in enumerate(by_class):
            assert groups[resample, label] == pytest.approx(np.mean(rights) if rights else np.nan, nan_ok=True)
        fitted = np.polyfit([x[image] for image, _ in pairs], [right for _, right in pairs], 1)
        assert slopes[resample] == pytest.approx(fitted[0])


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_what_was_measured_is_exact(outcomes: list[bool]) -> None:
    correct = np.array([outcomes])
    found = accuracy(correct, resample_counts(len(outcomes), 100, (0,)), np.ones((101, 1)))
    assert found[0] == correct.mean()


def test_a_slope_on_what_does_not_vary_is_undefined() -> None:
    correct = np.random.default_rng(0).random((1, 30)) < 0.5
    images = resample_counts(30, 400, (0,))
    for x in (np.zeros(30), np.full(30, 0.1)):
        assert estimate_if_defined(slope(correct, x, images, ONE_SEED), 30) is None


def test_a_slope_that_is_there_is_found() -> None:
    random = np.random.default_rng(0)
    x = random.random(2000)
    correct = random.random((1, 2000)) < 0.2 + 0.5 * x
    found = estimate(slope(correct, x, resample_counts(2000, 400, (0,)), ONE_SEED), 2000)
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.2


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random, hits = np.random.default_rng(0), 0
    for trial in range(300):
        correct = random.random((1, 200)) < 0.7
        found = estimate(accuracy(correct, resample_counts(200, 400, (trial,)), ONE_SEED), 200)
        hits += found.low <= 0.7 <= found.high
    assert 0.90 <= hits / 300 <= 0.99


def test_intervals_of_three_seeds_cover_a_difference_of_models_that_vary() -> None:
    """Resamples that draw three of three seeds cover under 88% of these."""
    random, hits = np.random.default_rng(0), 0
    for trial in range(300):
        easy = random.beta(2, 1, 500)
        first, second = (
            np.stack([random.random(500) < np.clip(easy + random.normal(0, 0.06), 0, 1) for _ in range(3)])
            for _ in range(2)
        )
        images = resample_counts(500, 300, (trial,))
        accuracies = [
            accuracy(correct, images, seed_weights(3, 300, (trial, split)))
            for split, correct in enumerate((first, second))
        ]
        found = estimate(accuracies[0] - accuracies[1], 500)
        hits += found.low <= 0 <= found.high
    assert 0.89 <= hits / 300 <= 0.97


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_resampled_seeds_have_the_variance_of_their_mean(seeds: int) -> None:
    models = np.random.default_rng(0).random(seeds)
    weights = seed_weights(seeds, 40_000, (1,))
    assert weights[0].tolist() == [1] * seeds
    assert weights.sum(axis=1) == pytest.approx(np.full(40_001, seeds))
    assert (weights[1:] @ models / seeds).var() == pytest.approx(models.var(ddof=1) / seeds, rel=0.03)


def test_one_seed_counts_once_in_every_resample() -> None:
    assert (seed_weights(1, 100, (0,)) == 1).all()


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("images", [1, 10, 250])
def test_outcomes_that_do_not_vary_have_the_interval_of_the_rule_of_three(images: int, seeds: int) -> None:
    counts, weights = resample_counts(images, 200, (0,)), seed_weights(seeds, 200, (1,))
    right = accuracy(np.ones((seeds, images), bool), counts, weights)
    wrong = accuracy(np.zeros((seeds, images), bool), counts, weights)
    reach = 3 / images
    for values, bounds, low, high in (
        (right, RATE, max(0, 1 - reach), 1),
        (wrong, RATE, 0, min(1, reach)),
        (right - right, DIFFERENCE, max(-1, -reach), min(1, reach)),
        (right - wrong, DIFFERENCE, max(-1, 1 - reach), 1),
    ):
        found = estimate(values, images, bounds)
        assert found.value == values[0]
        assert (found.low, found.high) == pytest.approx((low, high))
    assert judge_difference(estimate(right - right, images), 0.05) == (
        "equivalent" if images == 250 else "inconclusive"
    )


def test_a_share_and_a_slope_that_do_not_vary_have_an_interval_too() -> None:
    ones, zeros = np.ones(201), np.zeros(201)
    assert gap_explained(ones, ones, ones - 0.5, 100) == Estimate(0, -0.06, 0.06)
    x = np.array([0, 0, 0, 4.0])
    # The image at 4 is 3 away from the mean of 1, so it moves the slope by 3 / 12.
    assert images_of_slope(x) == 4
    assert estimate(zeros, images_of_slope(x), (-np.inf, np.inf)) == Estimate(0, -0.75, 0.75)


def test_pairing_by_image_narrows_a_difference() -> None:
    random = np.random.default_rng(0)
    first = random.random((1, 300)) < 0.5
    second = first ^ (random.random((1, 300)) < 0.05)
    shared, other = resample_counts(300, 400, (0,)), resample_counts(300, 400, (9,))
    paired = estimate(accuracy(first, shared, ONE_SEED) - accuracy(second, shared, ONE_SEED), 300)
    apart = estimate(accuracy(first, shared, ONE_SEED) - accuracy(second, other, ONE_SEED), 300)
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
    assert judge_difference(Estimate((low + high) / 2, low, high), 0.05) == expected


def _of(rate: float, seed: int):
    correct = np.random.default_rng(seed).random((2, 400)) < rate
    return accuracy(correct, resample_counts(400, 500, (0,)), seed_weights(2, 500, (seed,)))


def test_the_share_of_a_gap_is_undefined_where_there_may_be_none() -> None:
    full, pruned, alone = _of(0.8, 1), _of(0.6, 2), _of(0.4, 3)
    found = gap_explained(full, pruned, alone, 400)
    assert found is not None
    assert found.value == pytest.approx((full[0] - pruned[0]) / (full[0] - alone[0]))
    assert found.low < 0.5 < found.high
    assert gap_explained(full, pruned, _of(0.8, 4), 400) is None
    # The reference alone is better: there is no gap to explain.
    assert gap_explained(full, pruned, _of(0.95, 5), 400) is None


def _split(rule: str, kept: int, benchmarks: list[str], controls: str | None = None) -> Split:
    return Split(rule, {}, benchmarks, None, kept, 80, "", True, "x", controls)


@pytest.fixture
def outcomes() -> Outcomes:
    random = np.random.default_rng(0)
    splits = {
        "full": _split("full", 80, []),
        "reference-only": _split("random", 0, []),
        "pruned": _split("imagenet-like", 40, ["sketch"]),
        "control": _split("random", 40, []),
        "quarter": _split("dissimilar", 20, ["val", "sketch"]),
    }
    rates = {"full": 0.9, "reference-only": 0.2, "pruned": 0.4, "control": 0.8, "quarter": 0.9}
    benchmarks = ["val", "sketch"]
    correct = {(s, b): random.random((2, 200)) < rates[s] for s in splits for b in benchmarks}
    top5 = {place: outcomes | (random.random((2, 200)) < 0.5) for place, outcomes in correct.items()}
    used = {"val": np.ones(200, bool), "sketch": np.arange(200) < 150}
    labels = {benchmark: np.arange(200) % 7 for benchmark in benchmarks}
    similarity = {place: random.random(200) * 0.4 + 0.6 for place in correct}
    few_shot = {("full", "val", 10): np.array([[0.5, 0.6], [0.7, 0.2]])}
    copied = {"val": np.zeros(200, bool), "sketch": np.arange(200) % 8 == 0}
    return Outcomes(splits, 80, benchmarks, [0, 1], labels, used, copied, correct, top5, similarity, few_shot)


def test_cells(outcomes: Outcomes) -> None:
    cells = compare(PARAMETERS, outcomes).cells
    assert list(cells) == [(split, benchmark) for split in outcomes.splits for benchmark in outcomes.benchmarks]
    cell = cells["pruned", "sketch"]
    correct, top5 = outcomes.correct["pruned", "sketch"], outcomes.correct_top5["pruned", "sketch"]
    assert cell.rule_use == "used by the rule"
    assert cell.whole.images == 200
    assert cell.whole.top1.value == pytest.approx(correct.mean())
    assert cell.whole.top5 is not None
    assert cell.whole.top5.value == pytest.approx(top5.mean())
    recalls = [correct[:, outcomes.labels["sketch"] == label].mean() for label in range(7)]
    assert cell.whole.mean_per_class_recall.value == pytest.approx(np.mean(recalls))
    control = outcomes.correct["control", "sketch"]
    for queries, chosen in ((USED, slice(None, 150)), (HELD_OUT, slice(150, None))):
        measured = cell.measured[queries]
        assert measured.images == len(correct[0, chosen])
        assert measured.top1.value == pytest.approx(correct[:, chosen].mean())
        assert measured.minus_control is not None
        assert measured.minus_control.value == pytest.approx(correct[:, chosen].mean() - control[:, chosen].mean())
    assert cell.whole.minus_control is not None
    assert cell.whole.minus_control.value == pytest.approx(correct.mean() - control.mean())
    assert cell.whole.minus_control.high < 0
    assert cell.verdict_control == "lower"
    assert cells["pruned", "val"].rule_use == "held out"
    assert cells["pruned", "val"].held_out == cells["pruned", "val"].whole
    assert list(cells["pruned", "val"].measured) == ["all"]
    assert cells["quarter", "val"].held_out is None
    assert cells["full", "val"].whole.minus_full is None
    assert cells["quarter", "val"].whole.minus_control is None
    assert cells["quarter", "val"].whole.minus_full is not None
    explained = cells["pruned", "sketch"].gap_explained
    assert explained is not None
    assert 0.5 < explained.value < 1


def test_a_comparison_is_reproducible_and_does_not_depend_on_other_splits(outcomes: Outcomes) -> None:
    first, again = compare(PARAMETERS, outcomes), compare(PARAMETERS, outcomes)
    assert first == again
    fewer = replace(
        outcomes, splits={name: split for name, split in outcomes.splits.items() if name != "reference-only"}
    )
    found = compare(PARAMETERS, fewer)
    place = ("pruned", "sketch")
    assert found.cells[place].whole == first.cells[place].whole
    assert found.changes[place] == first.changes[place]
    metrics = flat_metrics(outcomes, first)
    assert metrics["pruned/sketch/accuracy"] == pytest.approx(outcomes.correct["pruned", "sketch"].mean())
    assert metrics["full/val/accuracy_10_shot"] == 0.5
    assert metrics["pruned/sketch/effective_robustness/high"] == first.robustness[place].effective.high
    assert metrics["pruned/sketch/accuracy_per_similarity/low"] == first.changes[place].slopes[ALL].low


def test_a_benchmark_of_few_classes_has_no_top5(outcomes: Outcomes) -> None:
    outcomes.correct_top5.clear()
    assert compare(PARAMETERS, outcomes).cells["full", "val"].whole.top5 is None


def test_tables_show_every_split_and_mark_what_rules_used(outcomes: Outcomes) -> None:
    comparison = compare(PARAMETERS, outcomes)
    text = text_of(outcomes, comparison)
    line = next(line for line in text.splitlines() if line.startswith("pruned"))
    value = f"{100 * outcomes.correct['pruned', 'sketch'].mean():.1f}*"
    assert line.split()[-1] == value
    report = report_of(outcomes, comparison)
    assert [row[0] for row in _rows(report, "Zero-shot accuracy")] == list(outcomes.splits)
    assert "equivalent" in report
    assert "degenerate" not in text + report
    # The model was trained on the reference, and so on the shots.
    assert ["10", "full", "yes", "50.0 ± 21.6", "refused"] in _rows(report, "Few-shot accuracy")


def test_long_tables(outcomes: Outcomes, tmp_path: Path) -> None:
    comparison = compare(PARAMETERS, outcomes)
    write_tables(long_tables(outcomes, comparison), tmp_path)
    tables = {path.stem: list(csv.DictReader(path.open())) for path in tmp_path.iterdir()}
    assert set(tables) == {
        "accuracy",
        "by_similarity",
        "change_by_similarity",
        "leaks",
        "robustness",
        "lines",
        "few_shot",
    }
    row = next(
        row
        for row in tables["accuracy"]
        if (row["split"], row["benchmark"], row["queries"], row["figure"]) == ("pruned", "sketch", "held out", "top5")
    )
    assert float(row["value"]) == pytest.approx(outcomes.correct_top5["pruned", "sketch"][:, 150:].mean())
    assert row["images"] == "50"
    assert tables["few_shot"] == [
        {
            "split": "full", "benchmark": "val", "benchmark_was": "held out", "shots": "10", "seeds": "2", "draws": "2",
            "trained_on_the_shots": "1", "mean": "0.5", "spread": "0.21602469",
        }
    ]  # fmt: skip
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_tables(long_tables(outcomes, compare(PARAMETERS, outcomes)), tmp_path)
    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def _rows(report: str, title: str) -> list[list[str]]:
    """Return the rows of a section's table, without its header."""
    section = report.split(f"## {title}")[1].split("## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[field.strip() for field in line.strip("|").split("|")] for line in lines[2:]]


def test_the_report_compares_every_split_with_full(outcomes: Outcomes) -> None:
    comparison = compare(PARAMETERS, outcomes)
    rows = _rows(report_of(outcomes, comparison), "Differences to random controls")
    assert [row[0] for row in rows] == [name for name in outcomes.splits if name != "full" for _ in outcomes.benchmarks]
    for split, control, benchmark, use, to_control, control_verdict, to_full, full_verdict in rows:
        cell = comparison.cells[split, benchmark]
        assert use == cell.rule_use
        assert cell.whole.minus_full is not None
        assert to_full.split()[0] == f"{100 * stored(cell.whole.minus_full.value):+.1f}"
        assert full_verdict == cell.verdict_full == judge_difference(cell.whole.minus_full, 0.05)
        if split == "pruned":
            assert (control, control_verdict) == ("control", cell.verdict_control)
            assert cell.whole.minus_control is not None
            assert to_control.split()[0] == f"{100 * stored(cell.whole.minus_control.value):+.1f}"
        else:
            assert (control, to_control, control_verdict) == ("-", "-", "-")


@pytest.mark.parametrize("kept", [("full",), ("pruned",), ("control", "reference-only")])
def test_no_header_stands_without_rows(outcomes: Outcomes, kept: tuple[str, ...]) -> None:
    fewer = replace(outcomes, splits={name: outcomes.splits[name] for name in kept}, few_shot={})
    report = report_of(fewer, compare(PARAMETERS, fewer))
    for section in report.split("\n## ")[1:]:
        assert len([line for line in section.splitlines() if line.startswith("|")]) > 2
    assert "Few-shot" not in report


def test_what_the_report_says_of_similarity_claims_and_shots(outcomes: Outcomes) -> None:
    outcomes.splits["quarter"] = replace(outcomes.splits["quarter"], reference_rows=False)
    outcomes.few_shot["quarter", "val", 10] = outcomes.few_shot["full", "val", 10]
    comparison = compare(PARAMETERS, outcomes)
    report = report_of(outcomes, comparison)
    for row in _rows(report, "Does accuracy change with similarity?"):
        bins = comparison.changes[row[0], row[1]].bins
        assert row[3].startswith(f"{bins[0].low:+.3f} to {bins[0].high:+.3f}: ")
        assert row[4].startswith(f"{bins[-1].low:+.3f} to {bins[-1].high:+.3f}: ")
    for split, benchmark, of_split, control, of_control in _rows(report, "Claim A"):
        assert control == "control"
        for name, found in ((split, of_split), (control, of_control)):
            explained = comparison.cells[name, benchmark].gap_explained
            assert explained is not None
            assert found.split()[0] == f"{100 * explained.value:.0f}"
    trained_on = {row[1]: row[2] for row in _rows(report, "Few-shot accuracy")}
    assert trained_on == dict.fromkeys(outcomes.splits, "yes") | {"quarter": "no"}


def test_columns_of_long_names_stay_apart(outcomes: Outcomes) -> None:
    lines = text_of(outcomes, compare(PARAMETERS, outcomes)).splitlines()
    assert lines[2].split() == ["split", "pool", "rows", "val", "sketch"]
    assert {len(line.rstrip().removesuffix("*")) for line in lines[3:]} == {len(lines[2])}
    long = "imagenet-rendition"
    renamed = replace(
        outcomes,
        benchmarks=["val", long],
        labels={"val": outcomes.labels["val"], long: outcomes.labels["sketch"]},
        used_by_rule={"val": outcomes.used_by_rule["val"], long: outcomes.used_by_rule["sketch"]},
        copied={"val": outcomes.copied["val"], long: outcomes.copied["sketch"]},
        correct={(s, b.replace("sketch", long)): found for (s, b), found in outcomes.correct.items()},
        correct_top5={},
        similarity={(s, b.replace("sketch", long)): found for (s, b), found in outcomes.similarity.items()},
    )
    lines = text_of(renamed, compare(PARAMETERS, renamed)).splitlines()
    assert lines[2].split()[-2:] == ["val", long]
    assert {len(line.rstrip().removesuffix("*")) for line in lines[3:]} == {len(lines[2])}


def test_leaks(outcomes: Outcomes, tmp_path: Path) -> None:
    comparison = compare(PARAMETERS, outcomes)
    correct, copied = outcomes.correct["pruned", "sketch"], outcomes.copied["sketch"]
    found = comparison.leaks["pruned", "sketch"]
    assert found.copied == 25
    whole = correct.mean()
    expected = (correct[:, copied].mean(), correct[:, ~copied].mean(), whole - correct[:, ~copied].mean())
    for estimated, value in zip((found.of_copies, found.without_copies, found.added_by_copies), expected, strict=True):
        assert estimated is not None
        assert estimated.value == pytest.approx(value)
        assert estimated.low < value < estimated.high
    # An eighth of the images changes little, because the difference is paired.
    assert found.added_by_copies.high - found.added_by_copies.low < found.without_copies.high - found.without_copies.low
    clean = comparison.leaks["pruned", "val"]
    assert clean == Leaks(0, None, clean.without_copies, None)
    assert clean.without_copies is not None
    assert clean.without_copies.value == pytest.approx(outcomes.correct["pruned", "val"].mean())
    outcomes.copied["val"] = np.ones(200, bool)
    leaked = compare(PARAMETERS, outcomes).leaks["pruned", "val"]
    assert (leaked.copied, leaked.without_copies, leaked.added_by_copies) == (200, None, None)
    metrics = flat_metrics(outcomes, comparison)
    assert metrics["full/sketch/added_by_copies/low"] == comparison.leaks["full", "sketch"].added_by_copies.low
    assert metrics["full/val/without_copies"] == pytest.approx(outcomes.correct["full", "val"].mean())
    assert not [key for key in metrics if "copies" in key and not key.startswith("full/")]
    write_tables(long_tables(outcomes, comparison), tmp_path)
    rows = list(csv.DictReader((tmp_path / "leaks.csv").open()))
    row = next(
        row for row in rows if (row["split"], row["benchmark"], row["figure"]) == ("pruned", "sketch", "of_copies")
    )
    assert row["copied"] == "25"
    assert float(row["value"]) == pytest.approx(expected[0])
    (line,) = csv.DictReader((tmp_path / "lines.csv").open())
    assert line["benchmark"] == "sketch"
    assert float(line["slope"]) == pytest.approx(comparison.lines["sketch"].slope)


def test_the_control_is_named_in_the_metrics(outcomes: Outcomes) -> None:
    metrics = flat_metrics(outcomes, compare(PARAMETERS, outcomes))
    assert {key: value for key, value in metrics.items() if key.endswith("/control")} == {"pruned/control": "control"}


def test_every_table_marks_what_the_rule_used(outcomes: Outcomes, tmp_path: Path) -> None:
    outcomes.few_shot["pruned", "sketch", 10] = outcomes.few_shot["full", "val", 10]
    comparison = compare(PARAMETERS, outcomes)
    write_tables(long_tables(outcomes, comparison), tmp_path)
    for path in tmp_path.iterdir():
        # Lines are fitted to random splits, which use no benchmark.
        rows = [row for row in csv.DictReader(path.open()) if path.stem != "lines"]
        for row in rows:
            assert row["benchmark_was"] == comparison.cells[row["split"], row["benchmark"]].rule_use
        assert {row["benchmark_was"] for row in rows} == ({"held out", "used by the rule"} if rows else set())


def test_tables_of_similarity_and_robustness(outcomes: Outcomes, tmp_path: Path) -> None:
    comparison = compare(PARAMETERS, outcomes)
    write_tables(long_tables(outcomes, comparison), tmp_path)
    for row in csv.DictReader((tmp_path / "by_similarity.csv").open()):
        low, high = float(row["similarity_from"]), float(row["similarity_to"])
        values = outcomes.similarity[row["split"], row["benchmark"]]
        assert int(row["images"]) == ((values >= low - 1e-8) & (values <= high + 1e-8)).sum()
        if row["bins"] == "0.05":
            assert high - low == pytest.approx(0.05)
    beyond = {
        (row["split"], row["figure"]): row["beyond_the_line"]
        for row in csv.DictReader((tmp_path / "robustness.csv").open())
    }
    assert beyond["pruned", "effective"] == "1"
    assert beyond["pruned", "relative"] == ""


def test_metrics(outcomes: Outcomes) -> None:
    comparison = compare(PARAMETERS, outcomes)
    metrics = flat_metrics(outcomes, comparison)
    correct = outcomes.correct["pruned", "sketch"]
    assert metrics["pruned/sketch/rule_queries"] == pytest.approx(correct[:, :150].mean())
    assert metrics["pruned/sketch/held_out"] == pytest.approx(correct[:, 150:].mean())
    assert metrics["pruned/val/held_out"] == metrics["pruned/val/accuracy"]
    assert "quarter/val/held_out" not in metrics
    explained = comparison.cells["pruned", "sketch"].gap_explained
    assert explained is not None
    assert metrics["pruned/sketch/gap_explained/high"] == explained.high
    slopes = comparison.changes["pruned", "sketch"].slopes
    assert metrics["pruned/sketch/accuracy_per_similarity/held_out"] == slopes[HELD_OUT].value
    assert metrics["pruned/sketch/accuracy_per_similarity/rule_queries"] == slopes[USED].value


def test_a_control_of_its_own_goes_first(outcomes: Outcomes) -> None:
    outcomes.splits["own"] = _split("random", 40, [], "pruned")
    assert outcomes.control_of("pruned") == "own"
    assert outcomes.control_of("quarter") is None
    assert outcomes.control_of("control") is None


def test_a_split_has_controls_of_the_same_composition_beside_the_random_one(outcomes: Outcomes, tmp_path: Path) -> None:
    before = flat_metrics(outcomes, compare(PARAMETERS, outcomes))
    random = np.random.default_rng(1)
    for name in ("by-class", "by-style"):
        outcomes.splits[name] = _split("matched", 40, [], "pruned")
        for benchmark in outcomes.benchmarks:
            outcomes.correct[name, benchmark] = random.random((2, 200)) < 0.6
            outcomes.correct_top5[name, benchmark] = outcomes.correct[name, benchmark]
            outcomes.similarity[name, benchmark] = random.random(200)
    assert outcomes.controls_of("pruned") == ["control", "by-class", "by-style"]
    assert outcomes.controls_of("by-class") == outcomes.controls_of("full") == []
    comparison = compare(PARAMETERS, outcomes)
    metrics = flat_metrics(outcomes, comparison)
    # The metrics of the random control do not change.
    assert {key: metrics[key] for key in before} == before
    assert metrics["pruned/matched_controls"] == "by-class, by-style"
    assert "by-class/matched_controls" not in metrics
    write_tables(long_tables(outcomes, comparison), tmp_path)
    rows = {
        (row["split"], row["benchmark"], row["queries"], row["figure"]): float(row["value"])
        for row in csv.DictReader((tmp_path / "accuracy.csv").open())
    }
    pruned = outcomes.correct["pruned", "sketch"]
    for name in ("by-class", "by-style"):
        difference = pruned.mean() - outcomes.correct[name, "sketch"].mean()
        assert metrics[f"pruned/sketch/minus/{name}"] == pytest.approx(difference)
        low, high = (metrics[f"pruned/sketch/minus/{name}/{end}"] for end in ("low", "high"))
        assert low < difference < high
        expected = judge_difference(Estimate(difference, low, high), PARAMETERS.equivalence_margin)
        assert metrics[f"pruned/sketch/verdict/{name}"] == expected
        assert rows["pruned", "sketch", "all", f"minus/{name}"] == pytest.approx(difference)
        held_out = pruned[:, 150:].mean() - outcomes.correct[name, "sketch"][:, 150:].mean()
        assert rows["pruned", "sketch", "held out", f"minus/{name}"] == pytest.approx(held_out)
    report = report_of(outcomes, comparison)
    named = [row[:3] for row in _rows(report, "Differences to random controls") if row[0] == "pruned"]
    controls = ["control", "by-class", "by-style"]
    assert named == [["pruned", control, benchmark] for benchmark in ("val", "sketch") for control in controls]
    claims = {(row[1], row[3]): row[4] for row in _rows(report, "Claim A")}
    for control in controls:
        share = comparison.cells[control, "sketch"].gap_explained
        assert share is not None
        assert claims["sketch", control].split()[0] == f"{100 * share.value:.0f}"
    # Without the random control the matched ones stay, and nothing takes its place.
    del outcomes.splits["control"]
    assert outcomes.controls_of("pruned") == ["by-class", "by-style"]
    alone = flat_metrics(outcomes, compare(PARAMETERS, outcomes))
    assert "pruned/sketch/minus_control" not in alone
    assert alone["pruned/sketch/minus/by-class"] == metrics["pruned/sketch/minus/by-class"]
    assert [
        row[1]
        for row in _rows(report_of(outcomes, compare(PARAMETERS, outcomes)), "Differences to random controls")
        if row[0] == "pruned"
    ] == ["by-class", "by-style"] * 2


def test_every_random_control_of_a_split_has_a_difference(outcomes: Outcomes, tmp_path: Path) -> None:
    outcomes.splits["control"] = _split("random", 40, [], "pruned")
    before = flat_metrics(outcomes, compare(PARAMETERS, outcomes))
    random = np.random.default_rng(1)
    for name, rule in (("by-class", "matched"), ("again", "random"), ("of-that-size", "random")):
        outcomes.splits[name] = _split(rule, 40, [], None if name == "of-that-size" else "pruned")
        for benchmark in outcomes.benchmarks:
            outcomes.correct[name, benchmark] = random.random((2, 200)) < 0.6
            outcomes.correct_top5[name, benchmark] = outcomes.correct[name, benchmark]
            outcomes.similarity[name, benchmark] = random.random(200)
    # A split that has the same size by chance is not a control.
    assert outcomes.controls_of("pruned") == ["control", "by-class", "again"]
    comparison = compare(PARAMETERS, outcomes)
    metrics = flat_metrics(outcomes, comparison)
    # Robustness may change: its line is fitted to all random splits.
    kept = [key for key in before if "robustness" not in key]
    assert [metrics[key] for key in kept] == [before[key] for key in kept]
    assert metrics["pruned/matched_controls"] == "by-class"
    assert metrics["pruned/second_controls"] == "again"
    for name in ("by-class", "again"):
        difference = outcomes.correct["pruned", "val"].mean() - outcomes.correct[name, "val"].mean()
        assert metrics[f"pruned/val/minus/{name}"] == pytest.approx(difference)
        assert f"pruned/val/verdict/{name}" in metrics
    report = report_of(outcomes, comparison)
    named = [row[1] for row in _rows(report, "Differences to random controls") if row[0] == "pruned"]
    assert named == ["control", "by-class", "again"] * 2


def test_an_interval_holds_95_of_100_resamples() -> None:
    found = estimate(np.concatenate([[0.5], np.linspace(0, 1, 1001)]), 10)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.025, 0.975))


def test_resamples_share_images_between_splits_and_nothing_else(outcomes: Outcomes) -> None:
    resamples = Resamples(PARAMETERS, outcomes)
    assert np.array_equal(resamples.images("val"), Resamples(PARAMETERS, outcomes).images("val"))
    # Benchmarks and kinds of queries have their own draws, although they have the same number of images.
    assert not np.array_equal(resamples.images("val"), resamples.images("sketch"))
    assert not np.array_equal(resamples.images("val"), resamples.images("val", USED))
    # Models of two splits are not paired: training seed 0 of one split shares no draw with seed 0 of another.
    assert not np.array_equal(resamples.seeds("full"), resamples.seeds("pruned"))


def test_a_split_that_keeps_too_little_is_flagged(outcomes: Outcomes) -> None:
    outcomes.splits["pruned"] = _split("imagenet-like", 15, ["sketch"])
    comparison = compare(PARAMETERS, outcomes)
    flag = "pruned is degenerate: it keeps only 18.8% of full, which is too little to represent the pool."
    assert text_of(outcomes, comparison).splitlines()[-1] == flag
    assert flag in report_of(outcomes, comparison)


LABELS = pa.array([0, 1, 1], pa.int32())
ROWS = pa.array([0, 1, 2], pa.int32())
QUERIES = pa.table(
    {"row": ROWS, "label": LABELS, "used_by_rule": [True, True, False]} | {"pool_similarity": [0.5, 0.7, 0.9]}
)
PROFILE = pa.table({"row": ROWS, "similarity": [0.1, 0.2, 0.3], "similarity_with_reference": [0.4, 0.5, 0.6]})


def _evaluation(correct: list[bool], shots: int = 5) -> pa.Table:
    few = pa.array([[outcome, True] for outcome in correct], pa.list_(pa.bool_(), 2))
    outcomes = {"correct": correct, "correct_top5": correct, f"correct_{shots}_shot": few}
    return pa.table({"row": ROWS, "label": LABELS, **outcomes})


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    for folder in ("similarity/val", "profiles/full", "profiles/alone"):
        (tmp_path / folder).mkdir(parents=True)
    pq.write_table(QUERIES, tmp_path / "similarity" / "val" / "queries.parquet")
    for name, reference_rows in (("full", False), ("alone", True)):
        split = replace(_split("full" if name == "full" else "random", 80, []), reference_rows=reference_rows)
        write_split(split, np.ones(80, bool), tmp_path / "splits" / name)
        pq.write_table(PROFILE, tmp_path / "profiles" / name / "val.parquet")
        for seed, correct in ((0, [True, False, True]), (1, [True, True, True])):
            (tmp_path / "evaluations" / f"{name}-{seed}").mkdir(parents=True)
            pq.write_table(_evaluation(correct), tmp_path / "evaluations" / f"{name}-{seed}" / "val.parquet")
    return tmp_path


def _read(folder: Path) -> Outcomes:
    places = [folder / name for name in ("splits", "similarity", "profiles", "evaluations")]
    return read_outcomes(["full", "alone"], [0, 1], ["val"], [5], 0.7, *places)


def test_reading_a_study(on_disk: Path) -> None:
    found = _read(on_disk)
    assert found.correct["full", "val"].tolist() == [[True, False, True], [True, True, True]]
    assert found.correct_top5["full", "val"].tolist() == found.correct["full", "val"].tolist()
    assert found.few_shot["full", "val", 5] == pytest.approx(np.array([[2 / 3, 1], [1, 1]]))
    assert found.copied["val"].tolist() == [False, False, True]
    # The reference joined the training data of one split only.
    assert found.similarity["full", "val"] == pytest.approx([0.1, 0.2, 0.3])
    assert found.similarity["alone", "val"] == pytest.approx([0.4, 0.5, 0.6])


SHUFFLED = pa.array([2, 1, 0], pa.int32())
UNKNOWN = PROFILE.set_column(2, "similarity_with_reference", [[0.1, None, 0.2]])
EVALUATION, SIMILARITY = "evaluations/alone-1/val.parquet", "similarity/val/queries.parquet"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (EVALUATION, None, "no such file; run the evaluate stage again"),
        (EVALUATION, b"PAR1", "cannot be read as a table .*; run the evaluate stage again"),
        (
            EVALUATION,
            _evaluation([True] * 3).drop_columns(["correct"]),
            "has no column correct; run the evaluate stage again",
        ),
        (
            EVALUATION,
            _evaluation([True] * 3).slice(0, 2),
            "the images differ from the images of .*; run the evaluate stage again or",
        ),
        (
            EVALUATION,
            _evaluation([True] * 3).set_column(1, "label", [LABELS.take(SHUFFLED)]),
            "the images differ from the images of",
        ),
        (EVALUATION, _evaluation([True] * 3, shots=4), r"with \[4\] shots, but evaluate.few_shot.shots is \[5\]"),
        (EVALUATION, _evaluation([True] * 3).drop_columns(["correct_5_shot"]), "other columns than .*full-0/val"),
        (EVALUATION, _evaluation([True] * 3).drop_columns(["correct_top5"]), "other columns than .*full-0/val"),
        ("evaluations/full-0/val.parquet", _evaluation([True] * 3).drop_columns(["correct_top5"]), "other columns"),
        ("profiles/alone/val.parquet", None, "no such file; run the profile stage again"),
        (
            "profiles/alone/val.parquet",
            PROFILE.slice(0, 2),
            r"has 2 images, which are not the 3 images of .*; run the profile stage again",
        ),
        (
            "profiles/alone/val.parquet",
            PROFILE.take(SHUFFLED),
            "images, which are not the .*; run the profile stage again",
        ),
        ("profiles/alone/val.parquet", UNKNOWN, "similarity_with_reference is empty for some images"),
        (SIMILARITY, None, "no such file; run the similarity stage again"),
        (
            SIMILARITY,
            QUERIES.drop_columns(["used_by_rule"]),
            "has no column used_by_rule; run the similarity stage again",
        ),
        (SIMILARITY, QUERIES.slice(0, 2), "the images differ from the images of .*; run the evaluate stage again or"),
    ],
)
def test_what_is_not_whole_on_disk_is_one_line(
    on_disk: Path, file: str, content: pa.Table | bytes | None, message: str
) -> None:
    (on_disk / file).unlink()
    if isinstance(content, bytes):
        (on_disk / file).write_bytes(content)
    elif content is not None:
        pq.write_table(content, on_disk / file)
    with pytest.raises(SimgapError, match=rf"^[^\n]*{message}[^\n]*$"):
        _read(on_disk)
