"""A sweep's figures: accuracy against threshold, and rows pruned below it."""

from __future__ import annotations

import functools
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from simgap.report.figures import (
    BLACK,
    COLOURS,
    GREY,
    LEGEND_LINE,
    MARKERS,
    WIDTH,
    FigureSpec,
    Style,
    in_percent,
    legend,
    style_of_control,
)
from simgap.studies.sweep.read import Cell, Point, Sweep

# Inches, without the legend.
HEIGHT = 4.4
# How far apart splits are drawn at one threshold, as a share of the range of thresholds.
DODGE = 0.012


def split_styles(sweep: Sweep) -> dict[str, Style]:
    """Give every split that depends on the threshold a look; a control is hollow, of its split's colour where that is there."""
    free = cycle(zip(COLOURS, MARKERS, strict=True))
    found: dict[str, Style] = {}
    of_rule = {split: sweep.line(split)[0].prune for split in sweep.splits}
    for split in sorted(sweep.splits, key=lambda name: of_rule[name]["controls"] is not None):
        controls = of_rule[split]["controls"]
        controlled = found.get(controls)
        if controlled is None:
            colour, marker = next(free)
            found[split] = Style(colour, "--" if controls else "-", marker, not controls)
        else:
            found[split] = style_of_control(controlled, of_rule[split]["rule"], found.values())
    return {split: found[split] for split in sweep.splits}


def _ends(cell: Cell) -> tuple[float, float]:
    """Give the interval of a mean over seeds, or from the worst to the best seed where no comparison gave one."""
    if cell.accuracy is None:
        return cell.lowest.value, cell.highest.value
    return cell.accuracy.low.value, cell.accuracy.high.value


def _level(axes: Axes, point: Point, benchmark: str, options: dict[str, Any]) -> None:
    cell = point.cells[benchmark]
    axes.axhspan(*_ends(cell), color=options["color"], alpha=0.1, linewidth=0)
    axes.axhline(cell.mean, label=point.split, **options)


def _draw(sweep: Sweep, styles: dict[str, Style], benchmark: str, canvas: Canvas) -> None:
    above, below = canvas.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    levels = ((True, {"color": BLACK, "linestyle": "-"}), (False, {"color": GREY, "linestyle": ":"}))
    for rows, options in levels:
        point = sweep.alone(rows=rows)
        if point is not None:
            _level(above, point, benchmark, options)
    step = DODGE * ((sweep.thresholds[-1] - sweep.thresholds[0]) or 1.0)
    for number, (split, look) in enumerate(styles.items()):
        line = sweep.line(split)
        x = np.array([float(point.threshold or 0) for point in line])
        cells = [point.cells[benchmark] for point in line]
        beside = x + (number - (len(styles) - 1) / 2) * step
        means = np.array([cell.mean for cell in cells])
        low, high = np.array([_ends(cell) for cell in cells]).T
        errors = np.maximum([means - low, high - means], 0)
        above.errorbar(
            beside, means, yerr=errors, capsize=2, elinewidth=0.8, label=split, linestyle=look.line, **look.of_points()
        )
        for place, cell in zip(beside, cells, strict=True):
            values = [figure.value for figure in cell.accuracies.values()]
            above.plot([place] * len(values), values, linestyle="none", marker=".", markersize=3, color=look.colour)
        # A control is without as many rows as its split, where that is there to show it.
        if line[0].prune["controls"] not in styles:
            below.plot(x, [point.pruned.value for point in line], linestyle=look.line, **look.of_points())
    above.set(ylabel="top-1 accuracy, per cent", title=benchmark)
    in_percent(above)
    below.set(xlabel="threshold, cosine", ylabel="rows pruned")
    below.set_ylim(0, 1.1 * below.dataLim.ymax or 1)
    below.set_xticks(sweep.thresholds)
    below.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    below.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    legend(canvas, above)


def drawings_of(sweep: Sweep) -> list[FigureSpec]:
    """Give a figure for each benchmark."""
    styles = split_styles(sweep)
    entries = len(styles) + sum(sweep.alone(rows=rows) is not None for rows in (True, False))
    compared = all(cell.accuracy for point in sweep.points.values() for cell in point.cells.values())
    bars = (
        "95% intervals over seeds and images"
        if compared
        else "95% intervals over seeds and images where one revision compared all seeds, else from the worst seed to the best"
    )
    return [
        FigureSpec(
            f"sweep-{benchmark}",
            "sweep",
            f"Accuracy on {benchmark} against the threshold: means over seeds, single models as small dots; bars and bands are "
            f"{bars}. Below, the rows that the rule prunes.",
            f"Lines: accuracy on {benchmark} of each split against the threshold; below, how many rows are pruned.",
            (WIDTH, HEIGHT + LEGEND_LINE * ((entries + 1) // 2)),
            functools.partial(_draw, sweep, styles, benchmark),
        )
        for benchmark in sweep.benchmarks
    ]
