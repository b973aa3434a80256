"""Draw the figures of pruning: the number of pruned rows at each threshold, and the pruned share of classes and styles."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simgap.report.figures.plots import BEHIND, drawable, in_percent, legend
from simgap.report.figures.style import COLOURS, GREY, WIDTH, FigureSpec, Styles, size_with_legend
from simgap.report.inputs import ReportInputs
from simgap.store.study import Study

# A figure shows at most this number of classes, because more labels would not be legible. The classes with the largest pruned
# share come first.
CLASSES = 20


def _draw_thresholds(study: Study, styles: Styles, curves: dict[str, dict[float, int]], figure: Figure) -> None:
    axes = figure.add_subplot()
    rows = study.rows_kept("full").value
    for split, pruned in curves.items():
        at = sorted(pruned)
        axes.plot(at, [pruned[t] / rows for t in at], label=split, **styles[split].line_options())
        chosen = float(study.rule(split).threshold or 0)
        axes.plot(chosen, pruned[chosen] / rows, linestyle="none", **styles[split].point_options())
    axes.axvline(chosen, color=GREY, linewidth=0.8, zorder=0)
    axes.annotate(
        "chosen", (chosen, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points", va="top",
        color=GREY, bbox=BEHIND,
    )  # fmt: skip
    axes.set(xlabel="threshold, cosine", ylabel="rows of full pruned, per cent", ylim=(0, None))
    in_percent(axes)
    legend(figure, axes)


def thresholds(inputs: ReportInputs, styles: Styles) -> list[FigureSpec]:
    """Return a figure of the share of rows that each imagenet-like rule would prune at other thresholds.

    There is no figure if the study has no imagenet-like split.
    """
    prefix = "rows_pruned_at/"
    curves: dict[str, dict[float, int]] = {}
    for split in inputs.pruned:
        metrics = inputs.study.read(f"profile/{split}")
        curves[split] = {float(k.removeprefix(prefix)): v for k, v in metrics.items() if k.startswith(prefix)}
    if not curves:
        return []
    return [
        FigureSpec(
            "thresholds", "thresholds",
            "The share of rows that another threshold would prune. The points show the threshold of this study.",
            "Share of rows pruned against the threshold, a falling curve for every imagenet-like split.",
            size_with_legend(len(curves)), partial(_draw_thresholds, inputs.study, styles, curves),
        )
    ]  # fmt: skip


def _draw_shares(shares: NDArray[np.float64], rows: list[str], columns: list[str], title: str, figure: Figure) -> None:
    """Draw shares as a heat map with a number in each cell.

    Args:
        shares: The shares, [rows, columns].
        rows: The labels of the rows.
        columns: The labels of the columns.
        title: The title of the figure.
        figure: The figure to draw in.
    """
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="cividis_r", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
    axes.set_title(title, loc="left")


def _annotated_share(inputs: ReportInputs, splits: list[str], ground_truth: str, kind: str) -> FigureSpec | None:
    metrics = inputs.ground_truth(ground_truth)
    prefix = f"full/pruned_share/{kind}/"
    names = sorted(key.removeprefix(prefix) for key in metrics if key.startswith(prefix))
    if not names or not splits:
        return None
    shares = np.array([[metrics[f"{split}/pruned_share/{kind}/{name}"] for name in names] for split in splits])
    caption = f"Share of the pool rows that each split leaves out, by {kind}"
    if len(names) > CLASSES:
        # Only some classes are drawn, because a figure with hundreds of classes would not be legible.
        totals = [-sum(column) for column in shares.T.tolist()]
        chosen = np.argsort(totals, kind="stable")[:CLASSES]
        names, shares = [names[place] for place in chosen], shares[:, chosen]
        caption += f": the {CLASSES} with the largest pruned share"
    labels, numbered = drawable(names)
    return FigureSpec(
        f"pruned-by-{kind}-{ground_truth}", "pruned", f"{caption}{numbered}.",
        f"Table of shades: share of rows pruned, a line for each split and a column for each {kind}.",
        (2.4 + 0.42 * len(names), 1.4 + 0.24 * len(splits)),
        partial(_draw_shares, shares, splits, labels, f"rows pruned by {kind}, per cent"),
    )  # fmt: skip


def annotated_shares(inputs: ReportInputs) -> list[FigureSpec]:
    """Return figures of the pruned share by style and by class.

    Styles and classes come from the annotations of the pool. A figure is skipped if there are no annotations for it, or no
    pruned split.
    """
    rules = {name: inputs.study.rule(name) for name in dict.fromkeys([*inputs.study.splits, *inputs.pruned])}
    splits = [name for name, rule in rules.items() if rule.rule != "full" and rule.kept]
    specs = [
        _annotated_share(inputs, splits, ground_truth, kind)
        for ground_truth in inputs.ground_truths
        for kind in ("style", "class")
    ]
    return [spec for spec in specs if spec is not None]


def _draw_classes(share: NDArray[np.float64], labels: list[str], benchmark: str, figure: Figure) -> None:
    axes = figure.add_subplot()
    axes.barh(range(len(share)), share, color=COLOURS[0], height=0.7)
    axes.set_yticks(range(len(share)), labels)
    axes.set_ylim(len(share) - 0.4, -0.6)
    axes.set(xlabel="rows pruned, per cent", title=benchmark, xlim=(0, 1))
    axes.grid(axis="y", visible=False)
    in_percent(axes, "x")


def class_shares(inputs: ReportInputs) -> list[FigureSpec]:
    """Return figures of the pruned share by class. A row has the class of its nearest query.

    The class of a query is known, so these figures need no annotations of the pool. A benchmark is skipped if the galleries
    show no pruned split for it.
    """
    specs = []
    for benchmark in inputs.study.benchmarks:
        split = inputs.shown_for(benchmark)
        if split is None:
            continue
        table = inputs.classes(split, benchmark)
        full_rows, kept = (table.column(name).to_numpy() for name in ("rows_of_full", "kept"))
        present = np.flatnonzero(full_rows)
        share = 1 - kept[present] / full_rows[present]
        order = np.argsort(-share, kind="stable")[:CLASSES]
        labels, numbered = drawable([inputs.classnames[benchmark][label] for label in present[order]])
        chosen = ": the classes with the largest pruned share" if len(present) > CLASSES else ""
        specs.append(
            FigureSpec(
                f"pruned-by-nearest-class-{benchmark}", "pruned",
                f"Share of rows that {split} leaves out, by the class of the nearest {benchmark} query{chosen}{numbered}.",
                f"Bars: share of pool rows pruned for each class of {benchmark}.", (WIDTH, 1 + 0.22 * len(order)),
                partial(_draw_classes, share[order], labels, benchmark),
            )
        )  # fmt: skip
    return specs
