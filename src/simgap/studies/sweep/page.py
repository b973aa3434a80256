"""A sweep as a page, its figures and a table, in one folder that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simgap.core.files import atomic_output
from simgap.report.figures import FigureSpec, write_figures
from simgap.report.numbers import cited
from simgap.report.sentences import listed, named
from simgap.store.tables import write_table
from simgap.studies.sweep.figures import drawings_of
from simgap.studies.sweep.read import Cell, Figure, Interval, Point, Sweep

PAGE, TABLE = "index.html", "sweep.csv"


def _number(figure: Figure, form: str) -> Markup:
    return cited(figure.value, figure.file, figure.key, form)


def _mean(cell: Cell) -> Markup:
    """Write a mean with all that it is the mean of."""
    figures = [cell.accuracies[seed] for seed in sorted(cell.accuracies)]
    files = "; ".join(figure.file for figure in figures)
    return cited(cell.mean, files, f"mean of {figures[0].key}", "percent")


def _with_ends(value: Markup, low: Markup, high: Markup) -> Markup:
    return Markup("{} [{}, {}]").format(value, low, high)


def _interval(found: Interval, form: str) -> Markup:
    return _with_ends(*(_number(figure, form) for figure in (found.value, found.low, found.high)))


def _cell(point: Point, benchmark: str) -> dict[str, Any]:
    cell = point.cells[benchmark]
    mean = _mean(cell)
    if cell.accuracy is not None:
        mean = _with_ends(mean, *(_number(end, "percent") for end in (cell.accuracy.low, cell.accuracy.high)))
    return {
        "used": benchmark in point.prune["benchmarks"],
        "mean": mean,
        "seeds": Markup(", ").join(_number(cell.accuracies[seed], "percent") for seed in sorted(cell.accuracies)),
        "minus_control": None if cell.minus_control is None else _interval(cell.minus_control, "points"),
    }


def _rows(sweep: Sweep) -> list[dict[str, Any]]:
    return [
        {
            "split": point.split,
            "rule": point.prune["rule"],
            "controls": point.prune["controls"],
            "threshold": None if point.threshold is None else f"{point.threshold:g}",
            "pruned": _number(point.pruned, "count"),
            "seeds": ", ".join(map(str, point.seeds)),
            "cells": [_cell(point, benchmark) for benchmark in sweep.benchmarks],
        }
        for point in sweep.points.values()
    ]


def render(sweep: Sweep, drawings: list[FigureSpec]) -> str:
    """Write the page; all that comes from the study is escaped, and there is no script."""
    loaders = [PackageLoader(package, "templates") for package in ("simgap.studies.sweep", "simgap.report")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("sweep.html").render(
        drawings=drawings,
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
    """Give a row for each split, threshold and benchmark; what is not known is empty."""
    for point in sweep.points.values():
        for benchmark, cell in point.cells.items():
            row: dict[str, object] = {
                "split": point.split,
                "rule": point.prune["rule"],
                "controls": point.prune["controls"],
                "threshold": point.threshold,
                "benchmark": benchmark,
                "benchmark_was": "used by the rule" if benchmark in point.prune["benchmarks"] else "held out",
                "rows_pruned": point.pruned.value,
                "rows_kept": point.kept.value,
                "seeds": " ".join(map(str, point.seeds)),
                "mean": cell.mean,
                "lowest_seed": cell.lowest.value,
                "highest_seed": cell.highest.value,
            }
            for name, interval in (("accuracy", cell.accuracy), ("minus_control", cell.minus_control)):
                figures = (None,) * 3 if interval is None else (interval.value, interval.low, interval.high)
                for end, figure in zip(("", "_low", "_high"), figures, strict=True):
                    row[f"{name}{end}"] = None if figure is None else figure.value
            yield row


def write_sweep(sweep: Sweep, out: Path) -> None:
    """Write the folder: the page, a figure for each benchmark, and the table of all figures."""
    drawings = drawings_of(sweep)
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        write_figures(drawings, partial)
        (partial / PAGE).write_text(render(sweep, drawings), encoding="utf-8")
        write_table(table_rows(sweep), partial / TABLE)
