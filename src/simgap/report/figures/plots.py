"""Draw the parts that several figures share: legends, axes, error bars and distributions."""

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

# Text over curves gets this white background, so that it stays legible.
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 1}
# The curve of a distribution has at most this number of points. More points would slow drawing down without a visible gain.
POINTS = 1000
# This is the distance between two splits of nearly the same size, as a share of the largest size. Without the distance, the
# intervals of the two splits would overlap.
DODGE = 0.018


@dataclass(frozen=True)
class Interval:
    """An estimate that `intervals` draws.

    Attributes:
        estimate: The estimate with its interval.
        style: The style of the point and the bar.
        name: The name in the legend.
    """

    estimate: Estimate
    style: Style
    name: str


def legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Draw the legend of `axes` below the figure."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def in_percent(axes: Axes, axis: str = "y") -> None:
    """Label an axis in per cent. The plotted values are shares in [0, 1] or differences of shares."""
    getattr(axes, f"{axis}axis").set_major_formatter(lambda share, _: typeset(round(100 * share, 6), "number"))


def error_bars(found: Estimate) -> list[list[float]]:
    """Return the distances from the value to the ends of the interval.

    Returns:
        The distances in the form that matplotlib expects: [[distance below], [distance above]].
    """
    return [[max(found.value - found.low, 0)], [max(found.high - found.value, 0)]]


def intervals(figure: Figure, rows: list[tuple[str, list[Interval]]], label: str, guides: list[float]) -> Axes:
    """Draw estimates with intervals as horizontal bars. Each row has its own position on the y axis.

    Args:
        figure: The figure to draw in.
        rows: The label and the estimates of each row.
        label: The label of the x axis.
        guides: The x positions of vertical lines.

    Returns:
        The axes.
    """
    axes = figure.add_subplot()
    seen: set[str] = set()
    for place, (_, found) in enumerate(rows):
        for number, interval in enumerate(found):
            y = place + (number - (len(found) - 1) / 2) * 0.28
            axes.errorbar(
                interval.estimate.value, y, xerr=error_bars(interval.estimate), capsize=2, linestyle="none",
                label=None if interval.name in seen else interval.name, **interval.style.point_options(),
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
    """Return labels that the font of the figures can draw.

    A name with characters that the font lacks gets a number as its label. Matplotlib could use a fallback font instead, but
    that font differs between computers. The figure would then have different bytes on different computers.

    Returns:
        The labels, and a text for the caption that explains the numbers. The text is empty if there are no numbers.
    """
    font = get_font(findfont(FONT))
    missing = [name for name in names if not all(font.get_char_index(ord(letter)) for letter in name)]
    numbers = {name: f"({number})" for number, name in enumerate(dict.fromkeys(missing), 1)}
    explained = ", ".join(f"{number} is {name}" for name, number in numbers.items())
    return [numbers.get(name, name) for name in names], f"; {explained}" if explained else ""


def cumulative(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the points of a cumulative distribution. At most `POINTS` evenly spaced points are kept.

    Returns:
        The values in ascending order, and the share of all values at or below each value.
    """
    ordered = np.sort(values).astype(np.float64)
    shown = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), POINTS)).round().astype(np.int64))
    return ordered[shown], (shown + 1) / len(ordered)


def list_matrix(column: Any) -> NDArray[np.float32]:
    """Turn a column of lists into a matrix.

    Lists are shorter if a split has few rows. Shorter lists are filled up with NaN.

    Returns:
        The matrix, fp32 [queries, k]. k is the length of the longest list.
    """
    lengths = pc.list_value_length(column).to_numpy()
    matrix = np.full((len(lengths), lengths.max(initial=0)), np.nan, np.float32)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = pc.list_flatten(column).to_numpy()
    return matrix


def apart(places: dict[str, int]) -> dict[str, float]:
    """Compute the x position of each split from the size of each split.

    Positions that are nearly the same are moved apart a little. The intervals of the splits then do not overlap.
    """
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
