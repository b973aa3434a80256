"""Prepare the tables of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from simgap.report.html import cite, cite_interval, named
from simgap.report.inputs import LEAKS
from simgap.store.study import Study


@dataclass(frozen=True)
class Table:
    """A table of text and HTML.

    Attributes:
        label: A description of the table for screen readers.
        columns: The headings of the columns.
        rows: The cells of each row. The first cell is the name of the row.
    """

    label: str
    columns: list[str | Markup]
    rows: list[list[str | Markup]]


@dataclass(frozen=True)
class Cell:
    """A cell of the table of accuracies, for one split and one benchmark.

    Attributes:
        accuracy: The accuracy with its interval, as HTML.
        differences: One tuple for each control and one for full. A tuple holds the label, the difference as HTML, and the
            verdict.
        used: Whether the split's rule used queries of the benchmark.
        sort: The values that a reader can sort the table by, by the name of the quantity.
    """

    accuracy: Markup
    differences: list[tuple[str, Markup, str]]
    used: bool
    sort: dict[str, float]


def _label_of(study: Study, split: str, control: str) -> str:
    if control == study.control_of(split):
        return "control"
    if study.splits[control].rule == "matched":
        return f"same by {study.splits[control].parameters['match']}"
    return Markup("control {}").format(named(control))


def _cell(study: Study, split: str, benchmark: str) -> Cell:
    accuracy, to_full = study.accuracy(split, benchmark), study.minus_full(split, benchmark)
    differences = []
    sort = {"accuracy": accuracy.value}
    for control in study.controls_of(split):
        found = study.minus_control(split, benchmark, control)
        if found is not None:
            label, verdict = _label_of(study, split, control), study.verdict_control(split, benchmark, control)
            differences.append((label, cite_interval(found, "points"), str(verdict)))
            if control == study.control_of(split):
                sort["minus_control"] = found.value
    if to_full is not None:
        differences.append(("full", cite_interval(to_full, "points"), str(study.verdict_full(split, benchmark))))
        sort["minus_full"] = to_full.value
    return Cell(cite_interval(accuracy, "percent"), differences, study.used(split, benchmark), sort)


def accuracy_table(study: Study) -> list[dict[str, Any]]:
    """Return the rows of the table of accuracies, one for each trained split.

    A row is a dictionary. `split`, `rule` and `controls` describe the split. `kept` and `rows` are the number of pool rows:
    `kept` is a number, and `rows` is HTML. `cells` holds a `Cell` for each benchmark.
    """
    return [
        {
            "split": split,
            "rule": info.rule,
            "controls": study.controls_of(split),
            "kept": info.kept,
            "rows": cite(study.rows_kept(split), "count"),
            "cells": [_cell(study, split, benchmark) for benchmark in study.benchmarks],
        }
        for split, info in study.splits.items()
    ]


def leak_table(study: Study) -> Table:
    """Return a table with one row for each benchmark.

    The columns contain the number of copied images, and the accuracies with and without copied images.
    """
    split = study.full() or next(iter(study.splits))

    def interval(benchmark: str, quantity: str, form: str) -> str | Markup:
        found = study.estimate(split, benchmark, quantity)
        return "none" if found is None else cite_interval(found, form)

    def number(key: str, form: str) -> str | Markup:
        return cite(study.metric(LEAKS, key), form)

    columns = [
        "benchmark",
        "images",
        "copied",
        "copied, per cent",
        "with an annotated copy",
        Markup("accuracy of {}").format(named(split)),
        "without copied images",
        "on copied images",
        "added by copied images, points",
    ]
    rows: list[list[str | Markup]] = [
        [
            benchmark,
            number(f"{benchmark}/queries", "count"),
            number(f"{benchmark}/copied", "count"),
            number(f"{benchmark}/copied_share", "percent"),
            number(f"{benchmark}/marked", "count") if f"{benchmark}/marked" in study.read(LEAKS) else "not known",
            interval(benchmark, "accuracy", "percent"),
            interval(benchmark, "without_copies", "percent"),
            interval(benchmark, "of_copies", "percent"),
            interval(benchmark, "added_by_copies", "points"),
        ]
        for benchmark in study.benchmarks
    ]
    return Table("Leaks by benchmark", columns, rows)


def similarity_table(study: Study) -> Table:
    """Return a table that shows how similar the pool and the reference are to each benchmark."""
    columns: dict[str, tuple[str, str]] = {
        "mean similarity to the reference": ("reference_similarity_mean", "similarity"),
        "mean similarity to the pool": ("pool_similarity_mean", "similarity"),
        "queries nearer to the pool than to the reference, per cent": ("queries_nearer_to_pool_share", "percent"),
        "pool rows nearer to a query than the reference, per cent": ("rows_with_positive_margin_share", "percent"),
    }
    rows: list[list[str | Markup]] = [
        [name, *(cite(study.metric(f"similarity/{name}", key), form) for key, form in columns.values())]
        for name in study.benchmarks
    ]
    return Table("Similarity by benchmark", ["benchmark", *columns], rows)


def training_table(study: Study) -> Table:
    """Return a table with the size of the training data and the length of training of each model."""
    columns = {
        "samples": ("samples", "count"),
        "samples seen": ("samples_seen", "count"),
        "epochs": ("epochs", "number"),
        "steps": ("steps", "count"),
        "final loss": ("loss_final", "similarity"),
    }
    rows: list[list[str | Markup]] = [
        [f"{split}-{seed}", *(cite(study.metric(f"train/{split}-{seed}", key), form) for key, form in columns.values())]
        for split in study.splits
        for seed in study.seeds
    ]
    return Table("Runs", ["run", *columns], rows)
