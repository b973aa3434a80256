"""Draw the figures of a sweep.

The upper plot shows accuracy against the threshold. The lower plot shows the pruned rows against the threshold.
"""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simgap.report.figures import style
from simgap.report.figures.plots import in_percent, legend
from simgap.studies.sweep.read import Cell, Point, Sweep

# This is the height of a figure without its legend, in inches. The legend below the plots adds to this height.
HEIGHT = 4.4
# This is the distance between two splits at the same threshold, as a share of the range of thresholds. Without the distance,
# the intervals of the two splits would overlap.
DODGE = 0.012


def sweep_styles(sweep: Sweep) -> style.Styles:
    """Return a style for every split that depends on the threshold, by split name.

    Controls have hollow markers. If the sweep contains a split and its control, both have the same colour.
    """
    free = cycle(zip(style.COLOURS, style.MARKERS, strict=True))
    found: style.Styles = {}
    rules = {split: sweep.line(split)[0].rule for split in sweep.splits}
    for split in sorted(sweep.splits, key=lambda name: rules[name].controls is not None):
        controls = rules[split].controls
        controlled = found.get(str(controls))
        if controlled is None:
            colour, marker = next(free)
            found[split] = style.Style(colour, "--" if controls else "-", marker, not controls)
        else:
            found[split] = style.style_of_control(controlled, rules[split].rule, found.values())
    return {split: found[split] for split in sweep.splits}


def _ends(cell: Cell) -> tuple[float, float]:
    """Return the lower and the upper end of the bar of a mean over seeds.

    The bar is the 95% interval. Without an interval, the bar is the range from the lowest to the highest accuracy of a seed.
    """
    if cell.accuracy is None:
        return cell.lowest.value, cell.highest.value
    return cell.accuracy.low, cell.accuracy.high


def _draw_level(axes: Axes, point: Point | None, benchmark: str, options: dict[str, Any]) -> None:
    """Draw the accuracy of a split that does not depend on the threshold.

    The accuracy is drawn as a horizontal line with a band. Nothing is drawn if `point` is None.
    """
    if point is not None:
        cell = point.cells[benchmark]
        axes.axhspan(*_ends(cell), color=options["color"], alpha=0.1, linewidth=0)
        axes.axhline(cell.mean, label=point.split, **options)


def _draw_accuracies(axes: Axes, x: Any, cells: list[Cell], split: str, line_style: style.Style) -> None:
    """Draw the mean accuracies of a split with bars, and the accuracy of each single model as a small dot."""
    means = np.array([cell.mean for cell in cells])
    low, high = np.array([_ends(cell) for cell in cells]).T
    errors = np.maximum([means - low, high - means], 0)
    axes.errorbar(
        x,
        means,
        yerr=errors,
        capsize=2,
        elinewidth=0.8,
        label=split,
        linestyle=line_style.line,
        **line_style.point_options(),
    )
    for place, cell in zip(x, cells, strict=True):
        values = [metric.value for metric in cell.accuracies.values()]
        axes.plot([place] * len(values), values, linestyle="none", marker=".", markersize=3, color=line_style.colour)


def _draw(sweep: Sweep, styles: style.Styles, benchmark: str, figure: Figure) -> None:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    _draw_level(above, sweep.full(), benchmark, {"color": style.BLACK, "linestyle": "-"})
    _draw_level(above, sweep.reference_only(), benchmark, {"color": style.GREY, "linestyle": ":"})
    step = DODGE * ((sweep.thresholds[-1] - sweep.thresholds[0]) or 1.0)
    for number, (split, line_style) in enumerate(styles.items()):
        line = sweep.line(split)
        x = np.array([float(point.threshold or 0) for point in line])
        beside = x + (number - (len(styles) - 1) / 2) * step
        _draw_accuracies(above, beside, [point.cells[benchmark] for point in line], split, line_style)
        # The curve of a control is drawn only if the sweep does not contain the split of the control. A control leaves out as
        # many rows as its split, so the two curves would be equal.
        if line[0].rule.controls not in styles:
            below.plot(
                x, [point.pruned.value for point in line], linestyle=line_style.line, **line_style.point_options()
            )
    above.set(ylabel="top-1 accuracy, per cent", title=benchmark)
    in_percent(above)
    below.set(xlabel="threshold, cosine", ylabel="rows pruned")
    below.set_ylim(0, 1.1 * below.dataLim.ymax or 1)
    below.set_xticks(sweep.thresholds)
    below.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    below.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    legend(figure, above)


def sweep_figures(sweep: Sweep) -> list[style.FigureSpec]:
    """Return the specifications of the figures, one for each benchmark."""
    styles = sweep_styles(sweep)
    entries = len(styles) + sum(point is not None for point in (sweep.full(), sweep.reference_only()))
    compared = all(cell.accuracy for point in sweep.points.values() for cell in point.cells.values())
    bars = "95% intervals over seeds and images"
    if not compared:
        bars += " if one revision compared all seeds, else the range from the worst seed to the best seed"
    return [
        style.FigureSpec(
            f"sweep-{benchmark}", "sweep",
            f"Accuracy on {benchmark} against the threshold. Lines show means over seeds, and small dots show single models. "
            f"Bars and bands are {bars}. The lower plot shows how many rows the rule prunes.",
            f"Two plots: accuracy on {benchmark} of each split against the threshold, and the number of pruned rows.",
            style.size_with_legend(entries, HEIGHT), partial(_draw, sweep, styles, benchmark),
        )
        for benchmark in sweep.benchmarks
    ]  # fmt: skip
