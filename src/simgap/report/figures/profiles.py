"""Draw the figures of similarity: profiles, and the nearest rows of each query."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from simgap.report.figures import style
from simgap.report.figures.plots import cumulative, in_percent, legend, list_matrix
from simgap.report.inputs import ReportInputs


def _draw_profiles(
    inputs: ReportInputs, styles: style.Styles, splits: list[str], benchmark: str, figure: Figure
) -> None:
    axes = figure.add_subplot()
    table = inputs.queries[benchmark]
    columns: list[tuple[str, Any, dict[str, Any]]] = [
        ("pool", table.column("pool_similarity"), {"color": style.BLACK}),
        ("reference", table.column("reference_similarity"), {"color": style.GREY, "linestyle": ":", "linewidth": 2}),
    ]
    columns += [
        (split, inputs.profile(split, benchmark).column("similarity"), styles[split].line_options()) for split in splits
    ]
    for name, column, options in columns:
        axes.step(*cumulative(column.to_numpy()), where="post", label=name, **options)
    axes.set(
        xlabel="similarity of a query to its nearest row, cosine",
        ylabel="queries at or below, per cent",
        title=benchmark,
    )
    in_percent(axes)
    legend(figure, axes)


def similarity(inputs: ReportInputs, styles: style.Styles) -> list[style.FigureSpec]:
    """Return one figure for each benchmark: the similarity profiles of the reference, the pool and the splits."""
    study = inputs.study
    kept = [name for name, split in study.splits.items() if split.kept and name != study.full()]
    return [
        style.FigureSpec(
            f"profile-{benchmark}", "similarity",
            f"Similarity profiles for {benchmark}. A curve further to the right means higher similarity. The profile of a split "
            "covers its pool rows only, not the reference.",
            f"Cumulative shares of {benchmark} queries by similarity to pool, reference and every split.",
            style.size_with_legend(len(kept) + 2), partial(_draw_profiles, inputs, styles, kept, benchmark),
        )
        for benchmark in study.benchmarks
    ]  # fmt: skip


def _draw_ranks(axes: Axes, nearest: NDArray[np.float32], name: str, line_style: style.Style) -> None:
    """Draw the similarity of queries to their nearest rows, as a function of the rank of the row.

    A line shows the median over queries. A band shows the range from the first to the third quartile.
    """
    if nearest.shape[1]:
        low, middle, high = np.nanquantile(nearest.astype(np.float64), (0.25, 0.5, 0.75), axis=0)
        rank = np.arange(1, nearest.shape[1] + 1)
        axes.fill_between(rank, low, high, color=line_style.colour, alpha=0.15, linewidth=0)
        axes.plot(rank, middle, label=name, linestyle=line_style.line, **line_style.point_options())


def _draw_neighbours(
    inputs: ReportInputs, styles: style.Styles, splits: list[str], benchmark: str, figure: Figure
) -> None:
    axes = figure.add_subplot()
    queries = inputs.queries[benchmark]
    before = list_matrix(queries.column("nearest_similarities"))
    _draw_ranks(axes, before, "pool, before pruning", style.Style(style.BLACK, "-", "o", True))
    for split in splits:
        nearest = list_matrix(inputs.profile(split, benchmark).column("nearest_similarities"))
        _draw_ranks(axes, nearest, split, styles[split])
    reference = queries.column("reference_similarity").to_numpy().astype(np.float64)
    axes.axhline(np.median(reference), color=style.GREY, linestyle=":", linewidth=2, label="reference, its nearest row")
    axes.set(xlabel="rank among a query's nearest rows", ylabel="similarity, cosine", title=benchmark)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, axes, 1)


def neighbourhoods(inputs: ReportInputs, styles: style.Styles) -> list[style.FigureSpec]:
    """Return one figure for each benchmark: how similar the k nearest rows are to the queries.

    Each figure shows the nearest rows in the pool, in the pruned split of the galleries, and in the control of this split.
    """
    study = inputs.study
    specs = []
    for benchmark in study.benchmarks:
        after = inputs.shown_for(benchmark)
        control = study.control_of(after) if after in study.splits else None
        shown = [name for name in (after, control) if name]
        specs.append(
            style.FigureSpec(
                f"neighbours-{benchmark}", "neighbourhoods",
                f"Similarity of {benchmark} queries to their nearest rows, by rank. Lines show the median over queries. Bands "
                "show the middle half of the queries.",
                f"Similarity of {benchmark} queries to their nearest rows by rank, before and after pruning.",
                (style.WIDTH, style.HEIGHT + style.LEGEND_LINE * (len(shown) + 2)),
                partial(_draw_neighbours, inputs, styles, shown, benchmark),
            )
        )  # fmt: skip
    return specs
