"""The page itself: one HTML file that needs nothing but the folders beside it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simgap.core.files import atomic_output
from simgap.report import sentences
from simgap.report.figures import FigureSpec, drawings_of, write_figures
from simgap.report.numbers import cited
from simgap.report.study import COMPARE, LEAKS, Study

FIGURES, GALLERIES, TABLES = "figures", "galleries", "tables"


@dataclass(frozen=True)
class Cell:
    """A cell of the table of accuracies: what it shows, and by what it is sorted (accuracy and differences, or None).

    Differences come with what they are to, and with their verdict.
    """

    accuracy: Markup
    differences: list[tuple[str, Markup, str]]
    used: bool
    sort: dict[str, float]


def _cell(study: Study, split: str, benchmark: str) -> Cell:
    place = f"{split}/{benchmark}"

    differences: list[tuple[str, str, str]] = [("control", "minus_control", "verdict_control")]
    for control in study.controls_of(split):
        if control != study.control_of(split):
            rule, parameters = study.splits[control]["rule"], study.splits[control]["parameters"]
            what = (
                f"same by {parameters['match']}"
                if rule == "matched"
                else Markup("control {}").format(sentences.named(control))
            )
            differences.append((what, f"minus/{control}", f"verdict/{control}"))
    differences.append(("full", "minus_full", "verdict_full"))
    return Cell(
        study.metrics.interval(COMPARE, f"{place}/accuracy", "percent"),
        [
            (what, study.metrics.interval(COMPARE, f"{place}/{figure}", "points"), study.compared[f"{place}/{verdict}"])
            for what, figure, verdict in differences
            if study.has(f"{place}/{figure}")
        ],
        study.used(split, benchmark),
        {
            name: study.compared[f"{place}/{name}"]
            for name in ("accuracy", "minus_control", "minus_full")
            if study.has(f"{place}/{name}")
        },
    )


def accuracy_table(study: Study) -> list[dict[str, Any]]:
    """Give the rows of the table of accuracies: split, rule, controls, rows and a cell for each benchmark."""
    return [
        {
            "split": split,
            "rule": study.splits[split]["rule"],
            "controls": study.controls_of(split),
            "kept": study.splits[split]["kept"],
            "rows": study.metrics.number(f"prune/{split}", "kept", "count"),
            "cells": [_cell(study, split, benchmark) for benchmark in study.benchmarks],
        }
        for split in study.runs
    ]


def leak_table(study: Study) -> list[dict[str, Any]]:
    """Give a row for each benchmark: how many of its images are copied, and the accuracy with and without them."""
    split = study.full() or study.runs[0]

    def interval(benchmark: str, figure: str, form: str) -> Markup | None:
        key = f"{split}/{benchmark}/{figure}"
        return study.metrics.interval(COMPARE, key, form) if study.has(key) else None

    return [
        {
            "benchmark": benchmark,
            "queries": study.metrics.number(LEAKS, f"{benchmark}/queries", "count"),
            "copied": study.metrics.number(LEAKS, f"{benchmark}/copied", "count"),
            "share": study.metrics.number(LEAKS, f"{benchmark}/copied_share", "percent"),
            "marked": (
                study.metrics.number(LEAKS, f"{benchmark}/marked", "count")
                if f"{benchmark}/marked" in study.metrics.read(LEAKS)
                else None
            ),
            "all": interval(benchmark, "accuracy", "percent"),
            "without": interval(benchmark, "without_copies", "percent"),
            "copies": interval(benchmark, "of_copies", "percent"),
            "added": interval(benchmark, "added_by_copies", "points"),
        }
        for benchmark in study.benchmarks
    ]


def similarity_table(study: Study) -> list[dict[str, Any]]:
    """Give a row for each benchmark: how similar pool and reference are to it."""
    return [
        {
            "benchmark": benchmark,
            "reference": study.metrics.number(f"similarity/{benchmark}", "reference_similarity_mean", "similarity"),
            "pool": study.metrics.number(f"similarity/{benchmark}", "pool_similarity_mean", "similarity"),
            "nearer": study.metrics.number(f"similarity/{benchmark}", "queries_nearer_to_pool_share", "percent"),
            "rows": study.metrics.number(f"similarity/{benchmark}", "rows_with_positive_margin_share", "percent"),
        }
        for benchmark in study.benchmarks
    ]


def training_table(study: Study) -> list[dict[str, Any]]:
    """Give a row for each run: what it was trained on and for how long."""
    rows = []
    for split in study.runs:
        for seed in study.seeds:
            name = f"train/{split}-{seed}"
            forms = {
                "samples": "count",
                "samples_seen": "count",
                "epochs": "number",
                "steps": "count",
                "loss_final": "similarity",
            }
            rows.append(
                {
                    "run": f"{split}-{seed}",
                    **{key: study.metrics.number(name, key, form) for key, form in forms.items()},
                }
            )
    return rows


class _Pictures:
    """Numbers of the galleries, which stand in the galleries' own file."""

    def __init__(self, study: Study) -> None:
        self._file = study.folders.galleries / "galleries.json"

    def similarity(self, entry: dict[str, Any], key: str, *, figure: str = "similarity") -> Markup:
        return cited(entry[figure], self._file, f"{key}/{figure}", "similarity")


def _script_hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def render(study: Study, drawings: list[FigureSpec], margin: float) -> str:
    """Write the page.

    Everything that comes from the study is escaped, and the page runs no script but its own, which its policy names by hash.
    """
    environment = Environment(
        loader=PackageLoader("simgap.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = environment.get_template("page.js").render()
    of_section: dict[str, list[FigureSpec]] = {}
    for drawing in drawings:
        of_section.setdefault(drawing.section, []).append(drawing)
    return environment.get_template("page.html").render(
        study=study,
        number=study.metrics.number,
        named=sentences.named,
        figures=of_section,
        pictures=_Pictures(study),
        table=accuracy_table(study),
        similarity=similarity_table(study),
        leaks=leak_table(study),
        training=training_table(study),
        tables=sorted(path.name for path in study.folders.tables.iterdir()),
        joined=sentences.joined(study),
        cautions=sentences.cautions(study),
        claim_a=sentences.claim_a(study),
        claim_b=sentences.claim_b(study, margin),
        leak_sentences=sentences.leaks(study),
        style=Markup(environment.get_template("page.css").render()),
        script=Markup(script),
        script_hash=_script_hash(script),
    )


def write_report(study: Study, margin: float, page: Path, figures: Path) -> None:
    """Write the page and, into the folder `figures` beside it, its figures.

    Args:
        margin: of equivalence, in accuracy.
    """
    drawings = drawings_of(study, margin, study.metrics.read(LEAKS)["threshold"])
    with atomic_output(figures) as partial:
        partial.mkdir(parents=True)
        write_figures(drawings, partial)
    with atomic_output(page) as partial:
        partial.write_text(render(study, drawings, margin), encoding="utf-8")
