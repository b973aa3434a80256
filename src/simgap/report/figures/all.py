"""Collect all figures of the page."""

from __future__ import annotations

from simgap.report.figures.accuracy import by_similarity, few_shot, robustness
from simgap.report.figures.claims import claim_a, claim_b
from simgap.report.figures.leaks import leaks
from simgap.report.figures.profiles import neighbourhoods, similarity
from simgap.report.figures.pruning import annotated_shares, class_shares, thresholds
from simgap.report.figures.style import FigureSpec, split_styles
from simgap.report.figures.training import training
from simgap.report.inputs import ReportInputs


def figure_specs(inputs: ReportInputs, margin: float, threshold: float) -> list[FigureSpec]:
    """Return the specifications of all figures of a study.

    Args:
        inputs: The study, and all data that its page shows.
        margin: The margin of equivalence, as a difference of accuracies in [0, 1].
        threshold: An image counts as copied if its similarity to the pool is above this threshold.
    """
    styles = split_styles(inputs)
    return [
        *claim_a(inputs.study, styles),
        *claim_b(inputs.study, styles, margin),
        *similarity(inputs, styles),
        *thresholds(inputs, styles),
        *annotated_shares(inputs),
        *class_shares(inputs),
        *neighbourhoods(inputs, styles),
        *leaks(inputs, threshold),
        *by_similarity(inputs, styles),
        *robustness(inputs, styles),
        *few_shot(inputs, styles),
        *training(inputs.study, styles),
    ]
