"""Write the page of a study: one HTML file that needs only the folders next to the file."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from markupsafe import Markup

from simgap.core.files import atomic_output
from simgap.report import sentences
from simgap.report.figures.all import figure_specs
from simgap.report.figures.style import FigureSpec, write_figures
from simgap.report.html import cite, named, template_environment
from simgap.report.inputs import LEAKS, ReportInputs
from simgap.report.tables import accuracy_table, leak_table, similarity_table, training_table


def _script_hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def render(inputs: ReportInputs, figures: list[FigureSpec], margin: float) -> str:
    """Return the page as HTML.

    All text from the study is escaped. The page has one script. The content security policy of the page contains the hash of
    this script, and forbids all other scripts.
    """
    environment = template_environment("simgap.report")
    script = environment.get_template("page.js").render()
    by_section: dict[str, list[FigureSpec]] = {}
    for figure in figures:
        by_section.setdefault(figure.section, []).append(figure)

    def number(name: str, key: str, form: str) -> Markup:
        return cite(study.metric(name, key), form)

    def gallery_similarity(entry: dict[str, Any], key: str) -> Markup:
        return cite(inputs.gallery_similarity(entry, key), "similarity")

    study = inputs.study
    return environment.get_template("page.html").render(
        study=study,
        galleries=inputs.galleries,
        number=number,
        named=named,
        figures=by_section,
        gallery_similarity=gallery_similarity,
        accuracies=accuracy_table(study),
        similarity=similarity_table(study),
        leaks=leak_table(study),
        training=training_table(study),
        tables=sorted(path.name for path in inputs.folders.tables.iterdir()),
        joined=sentences.joined(study),
        cautions=sentences.cautions(inputs),
        claim_a=sentences.claim_a(study),
        claim_b=sentences.claim_b(study, margin),
        leak_sentences=sentences.leaks(study),
        style=Markup(environment.get_template("page.css").render()),
        script=Markup(script),
        script_hash=_script_hash(script),
    )


def write_report(inputs: ReportInputs, margin: float, page: Path, figures: Path) -> None:
    """Write the page of a study and its figures.

    Args:
        inputs: The study, and all data that its page shows.
        margin: The margin of equivalence, as a difference of accuracies in [0, 1].
        page: The path of the page.
        figures: The folder of the figures. The page expects it next to the page, under the name `figures`.
    """
    specs = figure_specs(inputs, margin, inputs.study.metric(LEAKS, "threshold").value)
    with atomic_output(figures) as partial:
        partial.mkdir(parents=True)
        write_figures(specs, partial)
    with atomic_output(page) as partial:
        partial.write_text(render(inputs, specs, margin), encoding="utf-8")
