"""The figure of the training losses."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from simgap.report.figures.plots import legend
from simgap.report.figures.style import FigureSpec, Styles, size_with_legend
from simgap.store.study import Study

# Steps in the running mean of a loss, as a share of all recorded steps.
SMOOTHED = 0.05


def _draw_losses(study: Study, styles: Styles, figure: Figure) -> None:
    axes = figure.add_subplot()
    for split in study.splits:
        for number, seed in enumerate(study.seeds):
            steps, loss = np.array(study.read(f"train/{split}-{seed}")["loss"], np.float64).T
            width = max(1, round(SMOOTHED * len(loss)))
            smooth = np.convolve(loss, np.full(width, 1 / width), "valid")
            axes.plot(
                steps[width - 1 :], smooth, linewidth=1, label=None if number else split, **styles[split].line_options()
            )
    axes.set(xlabel="step", ylabel="contrastive loss, nats")
    legend(figure, axes)


def training(study: Study, styles: Styles) -> list[FigureSpec]:
    """Show the loss of every run."""
    return [
        FigureSpec(
            "training", "training", "Training loss, a running mean; a line for each split and seed.",
            "Contrastive loss against training step, a falling line for each split and seed.",
            size_with_legend(len(study.splits), 3.6), partial(_draw_losses, study, styles),
        )
    ]  # fmt: skip
