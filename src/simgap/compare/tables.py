"""The whole comparison as long tables, one CSV file a question."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from simgap.compare.bootstrap import Estimate
from simgap.compare.compare import Comparison
from simgap.compare.study import Study, spread

Row = dict[str, str | int | float | None]
FIGURES = ("top1", "top5", "mean_per_class_recall", "minus_full", "minus_control")


def _interval(found: Estimate) -> Row:
    return {"value": found.value, "low": found.low, "high": found.high}


def _about(comparison: Comparison, split: str, benchmark: str) -> Row:
    """Say what a row is about, and whether the split's rule used queries of the benchmark or none of them."""
    return {"split": split, "benchmark": benchmark, "benchmark_was": comparison.cells[split, benchmark].mark}


def accuracy_rows(comparison: Comparison) -> Iterator[Row]:
    """Give zero-shot figures by kind of query: all, used by the rule, held out."""
    for (split, benchmark), cell in comparison.cells.items():
        for queries, measured in cell.measured.items():
            figures = {figure: getattr(measured, figure) for figure in FIGURES}
            figures |= {f"minus/{control}": found for control, found in measured.minus_others.items()}
            for figure, found in figures.items():
                if found is not None:
                    yield (
                        _about(comparison, split, benchmark)
                        | {"queries": queries, "images": measured.images, "figure": figure}
                        | _interval(found)
                    )


def by_similarity_rows(comparison: Comparison) -> Iterator[Row]:
    """Give accuracy by s_q of what the split is trained on."""
    for (split, benchmark), bins in comparison.by_similarity.items():
        for found in bins:
            if found.figure is not None:
                about = _about(comparison, split, benchmark) | {"bins": found.kind}
                about |= {"similarity_from": found.low, "similarity_to": found.high, "images": found.images}
                yield about | _interval(found.figure)


def change_rows(study: Study, comparison: Comparison) -> Iterator[Row]:
    """Give the change in accuracy, split minus control, by the change in s_q."""
    for (split, benchmark), change in comparison.changes.items():
        for found in change.bins:
            if found.figure is not None:
                about = _about(comparison, split, benchmark) | {"control": study.control_of(split)}
                about |= {"change_from": found.low, "change_to": found.high, "images": found.images}
                yield about | _interval(found.figure)


def robustness_rows(comparison: Comparison) -> Iterator[Row]:
    """Give relative and effective robustness; `beyond_the_line` is empty where no line is meant."""
    for (split, benchmark), robustness in comparison.robustness.items():
        for figure in ("relative", "effective"):
            found = getattr(robustness, figure)
            if found is not None:
                beyond = int(robustness.beyond_the_line) if figure == "effective" else None
                about = _about(comparison, split, benchmark) | {"figure": figure, "beyond_the_line": beyond}
                yield about | _interval(found)


def line_rows(comparison: Comparison) -> Iterator[Row]:
    """Give the lines of robustness, of logits, and the accuracies without shift that they were fitted on."""
    for benchmark, line in comparison.lines.items():
        yield {"benchmark": benchmark, **asdict(line)}


def leak_rows(comparison: Comparison) -> Iterator[Row]:
    """Give accuracy on the images with a copy in the pool, on the others, and what the copies add to the whole."""
    for (split, benchmark), leaks in comparison.leaks.items():
        for figure in ("of_copies", "without_copies", "added_by_copies"):
            found = getattr(leaks, figure)
            if found is not None:
                yield (
                    _about(comparison, split, benchmark) | {"copied": leaks.copied, "figure": figure} | _interval(found)
                )


def few_shot_rows(study: Study, comparison: Comparison) -> Iterator[Row]:
    """Give few-shot accuracy: mean, and standard deviation, over seeds and draws."""
    for (split, benchmark, shots), accuracies in study.few_shot.items():
        about = _about(comparison, split, benchmark) | {"shots": shots, "seeds": accuracies.shape[0]}
        about |= {"draws": accuracies.shape[1], "trained_on_the_shots": int(study.splits[split].reference_rows)}
        yield about | {"mean": float(accuracies.mean()), "spread": spread(accuracies)}


def write_table(rows: Iterable[Mapping[str, object]], path: Path) -> None:
    """Write rows as CSV, floats with nine significant digits; without a row no file."""
    texts = [{key: f"{value:.9g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    if texts:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, texts[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(texts)


def write_tables(study: Study, comparison: Comparison, folder: Path) -> None:
    """Write accuracy.csv, by_similarity.csv, change_by_similarity.csv, leaks.csv, robustness.csv, lines.csv and few_shot.csv.

    A table without rows is not written.
    """
    tables = {
        "accuracy": accuracy_rows(comparison),
        "by_similarity": by_similarity_rows(comparison),
        "change_by_similarity": change_rows(study, comparison),
        "leaks": leak_rows(comparison),
        "robustness": robustness_rows(comparison),
        "lines": line_rows(comparison),
        "few_shot": few_shot_rows(study, comparison),
    }
    for name, rows in tables.items():
        write_table(rows, folder / f"{name}.csv")
