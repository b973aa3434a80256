"""Write the page of a sweep, with figures and a table. The page needs no file outside its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from simgap.core.files import atomic_output
from simgap.report.figures.style import FigureSpec, write_figures
from simgap.report.html import cite, cite_interval, listed, named, template_environment
from simgap.store.estimates import Metric
from simgap.store.tables import write_table
from simgap.store.verdicts import HELD_OUT, USED
from simgap.studies.sweep.figures import sweep_figures
from simgap.studies.sweep.read import Cell, Point, Sweep

PAGE, TABLE = "index.html", "sweep.csv"


def _mean(cell: Cell) -> Markup:
    """Return the mean over seeds as HTML, with the interval if there is one.

    The HTML names the files that the mean comes from.
    """
    metrics = [cell.accuracies[seed] for seed in sorted(cell.accuracies)]
    files = "; ".join(metric.file for metric in metrics)
    mean = cite(Metric(cell.mean, files, f"mean of {metrics[0].key}"), "percent")
    if cell.accuracy is None:
        return mean
    _, low, high = (cite(metric, "percent") for metric in cell.accuracy.metrics)
    return Markup("{} [{}, {}]").format(mean, low, high)


def _cell(point: Point, benchmark: str) -> dict[str, Any]:
    cell = point.cells[benchmark]
    return {
        "used": benchmark in point.rule.benchmarks,
        "mean": _mean(cell),
        "seeds": Markup(", ").join(cite(cell.accuracies[seed], "percent") for seed in sorted(cell.accuracies)),
        "minus_control": None if cell.minus_control is None else cite_interval(cell.minus_control, "points"),
    }


def _rows(sweep: Sweep) -> list[dict[str, Any]]:
    return [
        {
            "split": point.split,
            "rule": point.rule.rule,
            "controls": point.rule.controls,
            "threshold": None if point.threshold is None else f"{point.threshold:g}",
            "pruned": cite(point.pruned, "count"),
            "seeds": ", ".join(map(str, point.seeds)),
            "cells": [_cell(point, benchmark) for benchmark in sweep.benchmarks],
        }
        for point in sweep.points.values()
    ]


def render(sweep: Sweep, figures: list[FigureSpec]) -> str:
    """Return the page as HTML. All text from the study is escaped, and the page contains no script."""
    environment = template_environment("simgap.studies.sweep", "simgap.report")
    return environment.get_template("sweep.html").render(
        figures=figures,
        rows=_rows(sweep),
        benchmarks=sweep.benchmarks,
        thresholds=", ".join(f"{threshold:g}" for threshold in sweep.thresholds),
        revisions=listed(sweep.revisions),
        left_out=sweep.left_out,
        named=named,
        table=TABLE,
        style=Markup(environment.get_template("page.css").render()),
    )


def table_rows(sweep: Sweep) -> Iterator[dict[str, object]]:
    """Yield a row for each split, threshold and benchmark. Values that no revision has computed are None."""
    for point in sweep.points.values():
        for benchmark, cell in point.cells.items():
            row: dict[str, object] = {
                "split": point.split,
                "rule": point.rule.rule,
                "controls": point.rule.controls,
                "threshold": point.threshold,
                "benchmark": benchmark,
                "benchmark_was": USED if benchmark in point.rule.benchmarks else HELD_OUT,
                "rows_pruned": point.pruned.value,
                "rows_kept": point.kept.value,
                "seeds": " ".join(map(str, point.seeds)),
                "mean": cell.mean,
                "lowest_seed": cell.lowest.value,
                "highest_seed": cell.highest.value,
            }
            for name, found in (("accuracy", cell.accuracy), ("minus_control", cell.minus_control)):
                row[name] = None if found is None else found.value
                row[f"{name}_low"] = None if found is None else found.low
                row[f"{name}_high"] = None if found is None else found.high
            yield row


def write_sweep(sweep: Sweep, out: Path) -> None:
    """Write the page, a figure for each benchmark, and a CSV file with all numbers into the folder `out`."""
    figures = sweep_figures(sweep)
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        write_figures(figures, partial)
        (partial / PAGE).write_text(render(sweep, figures), encoding="utf-8")
        write_table(table_rows(sweep), partial / TABLE)
