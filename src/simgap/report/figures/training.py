"""Draw the figure of the training losses."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from simgap.report.figures.plots import legend
from simgap.report.figures.style import FigureSpec, Styles, size_with_legend
from simgap.store.study import Study

# This is the width of a running mean, as a share of all steps. The mean smooths the loss, because single steps are noisy.
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
    """Return a list with one figure: the training loss of every model."""
    return [
        FigureSpec(
            "training", "training", "Training loss as a running mean, with a line for each split and seed.",
            "Contrastive loss against training step, a falling line for each split and seed.",
            size_with_legend(len(study.splits), 3.6), partial(_draw_losses, study, styles),
        )
    ]  # fmt: skip
