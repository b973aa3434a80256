"""Write all results of a comparison as long tables. Each table is about one kind of result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from simgap.compare.compare import Comparison
from simgap.compare.outcomes import Outcomes, spread
from simgap.store.estimates import Estimate
from simgap.store.tables import Row, write_table

QUANTITIES = ("top1", "top5", "mean_per_class_recall", "minus_full", "minus_control")


def _rows(about: Row, estimates: Mapping[str, Estimate | None]) -> Iterator[Row]:
    """Yield a row for each estimate. The column `figure` names the quantity. Undefined estimates (None) are skipped."""
    for quantity, found in estimates.items():
        if found is not None:
            yield about | {"figure": quantity} | _interval(found)


def _interval(found: Estimate) -> Row:
    return {"value": found.value, "low": found.low, "high": found.high}


def _about(comparison: Comparison, split: str, benchmark: str) -> Row:
    """Return the columns that describe a row: `split`, `benchmark` and `benchmark_was`.

    The column `benchmark_was` says whether the split's rule used queries of the benchmark.
    """
    return {"split": split, "benchmark": benchmark, "benchmark_was": comparison.cells[split, benchmark].rule_use}


def accuracy_rows(comparison: Comparison) -> Iterator[Row]:
    """Yield a row for each zero-shot accuracy and difference, separately for each kind of query."""
    for (split, benchmark), cell in comparison.cells.items():
        for queries, measured in cell.measured.items():
            estimates = {quantity: getattr(measured, quantity) for quantity in QUANTITIES}
            estimates |= {f"minus/{control}": found for control, found in measured.minus_others.items()}
            about = _about(comparison, split, benchmark) | {"queries": queries, "images": measured.images}
            yield from _rows(about, estimates)


def by_similarity_rows(comparison: Comparison) -> Iterator[Row]:
    """Yield a row for each group of queries with about the same similarity to the training data of a split."""
    for (split, benchmark), bins in comparison.by_similarity.items():
        for found in bins:
            if found.estimate is not None:
                about = _about(comparison, split, benchmark) | {"bins": found.kind}
                about |= {"similarity_from": found.low, "similarity_to": found.high, "images": found.images}
                yield about | _interval(found.estimate)


def change_rows(outcomes: Outcomes, comparison: Comparison) -> Iterator[Row]:
    """Yield a row for each group of queries with about the same change in similarity. Changes are split minus control."""
    for (split, benchmark), change in comparison.changes.items():
        for found in change.bins:
            if found.estimate is not None:
                about = _about(comparison, split, benchmark) | {"control": outcomes.control_of(split)}
                about |= {"change_from": found.low, "change_to": found.high, "images": found.images}
                yield about | _interval(found.estimate)


def robustness_rows(comparison: Comparison) -> Iterator[Row]:
    """Yield rows for relative and effective robustness.

    The column `beyond_the_line` is empty for relative robustness, because only effective robustness depends on the line.
    """
    for (split, benchmark), robustness in comparison.robustness.items():
        for quantity, beyond in (("relative", None), ("effective", int(robustness.beyond_the_line))):
            found = getattr(robustness, quantity)
            if found is not None:
                about = _about(comparison, split, benchmark) | {"figure": quantity, "beyond_the_line": beyond}
                yield about | _interval(found)


def line_rows(comparison: Comparison) -> Iterator[Row]:
    """Yield a row for each line of robustness.

    The row has the slope and the intercept of the line for logits. It also has the range of in-distribution accuracies that the
    line was fitted to.
    """
    for benchmark, line in comparison.lines.items():
        yield {"benchmark": benchmark, **asdict(line)}


def leak_rows(comparison: Comparison) -> Iterator[Row]:
    """Yield rows about the copied images, for each split and benchmark.

    There are three quantities: the accuracy on copied images, the accuracy on the other images, and the accuracy that the
    copied images add.
    """
    for (split, benchmark), leaks in comparison.leaks.items():
        quantities = ("of_copies", "without_copies", "added_by_copies")
        about = _about(comparison, split, benchmark) | {"copied": leaks.copied}
        yield from _rows(about, {quantity: getattr(leaks, quantity) for quantity in quantities})


def few_shot_rows(outcomes: Outcomes, comparison: Comparison) -> Iterator[Row]:
    """Yield a row for each few-shot accuracy: the mean and standard deviation over training seeds and sampled shots."""
    for (split, benchmark, shots), accuracies in outcomes.few_shot.items():
        about = _about(comparison, split, benchmark) | {"shots": shots, "seeds": accuracies.shape[0]}
        about |= {"draws": accuracies.shape[1], "trained_on_the_shots": int(outcomes.splits[split].reference_rows)}
        yield about | {"mean": float(accuracies.mean()), "spread": spread(accuracies)}


def long_tables(outcomes: Outcomes, comparison: Comparison) -> dict[str, list[Row]]:
    """Return the rows of every table, by table name. A table may have no rows."""
    tables: dict[str, Iterable[Row]] = {
        "accuracy": accuracy_rows(comparison),
        "by_similarity": by_similarity_rows(comparison),
        "change_by_similarity": change_rows(outcomes, comparison),
        "leaks": leak_rows(comparison),
        "robustness": robustness_rows(comparison),
        "lines": line_rows(comparison),
        "few_shot": few_shot_rows(outcomes, comparison),
    }
    return {name: list(rows) for name, rows in tables.items()}


def write_tables(tables: Mapping[str, list[Row]], folder: Path) -> None:
    """Write each table to `<name>.csv` in a folder. Tables without rows are skipped."""
    for name, rows in tables.items():
        write_table(rows, folder / f"{name}.csv")
