"""What several figures draw: legends, axes, error bars, distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from numpy.typing import NDArray

from simgap.report.figures.style import FONT, GREY, Style
from simgap.report.html import typeset
from simgap.store.estimates import Estimate

# The background of a word over curves.
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 1}
# Points of a curve that shows a distribution.
POINTS = 1000
# Distance between intervals of splits of the same size, as a share of the largest size.
DODGE = 0.018


@dataclass(frozen=True)
class Interval:
    """An estimate in a line of `intervals`, with the style and the name of what it belongs to."""

    estimate: Estimate
    style: Style
    name: str


def legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Draw the legend of the axes below a figure."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def in_percent(axes: Axes, axis: str = "y") -> None:
    """Label the shares on an axis in per cent."""
    getattr(axes, f"{axis}axis").set_major_formatter(lambda share, _: typeset(round(100 * share, 6), "number"))


def error_bars(found: Estimate) -> list[list[float]]:
    """Return an interval as matplotlib's distances below and above the value."""
    return [[max(found.value - found.low, 0)], [max(found.high - found.value, 0)]]


def intervals(figure: Figure, rows: list[tuple[str, list[Interval]]], label: str, guides: list[float]) -> Axes:
    """Draw estimates with intervals, a line of the axes for each row.

    Args:
        figure: The figure.
        rows: The label and the estimates of each row.
        label: The label of the x axis.
        guides: Positions of vertical lines.
    """
    axes = figure.add_subplot()
    seen: set[str] = set()
    for place, (_, found) in enumerate(rows):
        for number, interval in enumerate(found):
            y = place + (number - (len(found) - 1) / 2) * 0.28
            axes.errorbar(
                interval.estimate.value, y, xerr=error_bars(interval.estimate), capsize=2, linestyle="none",
                label=None if interval.name in seen else interval.name, **interval.style.of_points(),
            )  # fmt: skip
            seen.add(interval.name)
    for guide in guides:
        axes.axvline(guide, color=GREY, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label)
    return axes


def drawable(names: Sequence[str]) -> tuple[list[str], str]:
    """Return labels for names, and the part of the caption that explains them.

    A name with characters that the font lacks gets a number as its label. A fallback font of the user's system would change
    the bytes of the file.
    """
    font = get_font(findfont(FONT))
    missing = [name for name in names if not all(font.get_char_index(ord(letter)) for letter in name)]
    numbers = {name: f"({number})" for number, name in enumerate(dict.fromkeys(missing), 1)}
    explained = ", ".join(f"{number} is {name}" for name, number in numbers.items())
    return [numbers.get(name, name) for name in names], f"; {explained}" if explained else ""


def cumulative(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ascending values and the share of values at or below each. Many values are thinned to `POINTS`."""
    ordered = np.sort(values).astype(np.float64)
    shown = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), POINTS)).round().astype(np.int64))
    return ordered[shown], (shown + 1) / len(ordered)


def list_matrix(column: Any) -> NDArray[np.float32]:
    """Return a column of lists as [queries, k]. Shorter lists, of splits with few rows, are filled with NaN."""
    lengths = pc.list_value_length(column).to_numpy()
    matrix = np.full((len(lengths), lengths.max(initial=0)), np.nan, np.float32)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = pc.list_flatten(column).to_numpy()
    return matrix


def apart(places: dict[str, int]) -> dict[str, float]:
    """Move places that are nearly the same a little apart, so that their intervals do not overlap."""
    step = DODGE * max(places.values())
    moved: dict[str, float] = {}
    group: list[str] = []
    for name in sorted(places, key=lambda name: places[name]):
        if group and places[name] - places[group[0]] > len(places) * step:
            group = []
        group.append(name)
        middle = sum(places[other] for other in group) / len(group)
        moved |= {other: middle + (number - (len(group) - 1) / 2) * step for number, other in enumerate(group)}
    return moved
