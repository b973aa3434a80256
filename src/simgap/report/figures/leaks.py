"""Draw the figures of leaks: similarity to the pool, and accuracy with and without copied images."""

from __future__ import annotations

from functools import partial
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from simgap.report.figures import style
from simgap.report.figures.plots import BEHIND, Interval, cumulative, in_percent, intervals, legend
from simgap.report.inputs import ReportInputs
from simgap.store.study import Study

QUANTITIES = {
    "all images": ("accuracy", style.Style(style.BLACK, "-", style.MARKERS[0], True)),
    "without copied ones": ("without_copies", style.Style(style.COLOURS[0], "-", style.MARKERS[1], True)),
    "copied ones alone": ("of_copies", style.Style(style.COLOURS[1], "-", style.MARKERS[2], True)),
}


def _draw_similarity(inputs: ReportInputs, threshold: float, figure: Figure) -> None:
    axes = figure.add_subplot()
    lines = cycle((colour, line) for line in ("-", "--", "-.") for colour in style.COLOURS)
    lowest = 1.0
    for benchmark, (colour, line) in zip(inputs.study.benchmarks, lines, strict=False):
        lower, share = cumulative(-inputs.queries[benchmark].column("pool_similarity").to_numpy())
        axes.step(-lower, share, color=colour, linestyle=line, label=benchmark)
        lowest = min(lowest, -float(np.median(lower)))
    axes.axvline(threshold, color=style.GREY, linewidth=0.8)
    axes.annotate(
        "threshold", (threshold, 1), xycoords=("data", "axes fraction"), xytext=(-3, -2), textcoords="offset points",
        va="top", ha="right", color=style.GREY, bbox=BEHIND,
    )  # fmt: skip
    axes.set(xlabel="similarity to the nearest pool row, cosine", ylabel="queries at or above, per cent")
    axes.set_xlim(min(lowest, threshold), None)
    axes.set_ylim(0, 0.5)
    in_percent(axes)
    legend(figure, axes)


def _draw_accuracy(study: Study, split: str, figure: Figure) -> None:
    rows = []
    for benchmark in study.benchmarks:
        found = {name: study.estimate(split, benchmark, quantity) for name, (quantity, _) in QUANTITIES.items()}
        rows.append(
            (benchmark, [Interval(of, QUANTITIES[name][1], name) for name, of in found.items() if of is not None])
        )
    axes = intervals(figure, rows, f"top-1 accuracy of {split}, per cent", [])
    in_percent(axes, "x")
    legend(figure, axes, 1)


def leaks(inputs: ReportInputs, threshold: float) -> list[style.FigureSpec]:
    """Return two figures: the similarity of queries to the pool, and the accuracy with and without copied images.

    Args:
        inputs: The study, and all data that its page shows.
        threshold: An image counts as copied if its similarity to the pool is above this threshold.
    """
    study = inputs.study
    split = study.full() or next(iter(study.splits))
    return [
        style.FigureSpec(
            "leaks-similarity", "leaks",
            "The half of each benchmark's queries that is most similar to the pool. A query to the right of the threshold counts "
            "as copied.",
            "Share of queries at or above a similarity to the pool, a falling curve for each benchmark.",
            style.size_with_legend(len(study.benchmarks)), partial(_draw_similarity, inputs, threshold),
        ),
        style.FigureSpec(
            "leaks-accuracy", "leaks", f"Accuracy of {split} with and without the images that have a copy in the pool.",
            f"Dots with intervals: accuracy of {split} on all images, on images without a copy and on copied images.",
            (style.WIDTH, 1.2 + 0.55 * len(study.benchmarks) + 3 * style.LEGEND_LINE), partial(_draw_accuracy, study, split),
        ),
    ]  # fmt: skip
