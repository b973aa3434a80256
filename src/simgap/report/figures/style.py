"""The style of all figures. Figures are PNG files whose bytes depend on the study alone.

The colours are from Okabe & Ito (Color Universal Design, 2008), which colour-blind readers can tell apart. Line and marker
repeat what the colour says. A control has the colour of the split that it controls, with a dashed line and a hollow marker. A
control of the same composition has a dotted line and a marker of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from simgap.core.progress import progress
from simgap.report.inputs import BY_SIZE, IMAGENET_LIKE, ReportInputs

BLACK, GREY, LIGHT = "#000000", "#767676", "#D9D9D9"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
# For controls of the same composition, and for second controls.
MATCHED_MARKERS = ("<", ">", "p", "h")
# A line of matplotlib: its name, or its offset and the lengths of its dashes.
Line = str | tuple[int, tuple[float, ...]]
DOTTED: Line = (0, (1, 1.2))
LINES: tuple[Line, ...] = ("-", "-.", (0, (4, 1, 1, 1, 1, 1)))
FONT = "DejaVu Sans"
SETTINGS: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "figure.dpi": 160,
    # The name of a class may contain a dollar sign.
    "text.parse_math": False,
}
# Inches. A figure is as wide as the page on a phone, so that its text stays legible without zooming.
WIDTH, HEIGHT = 4.2, 3.2
LEGEND_LINE = 0.17


@dataclass(frozen=True)
class Style:
    """How a split is drawn."""

    colour: str
    line: Line
    marker: str
    filled: bool

    def of_line(self) -> dict[str, Any]:
        """Return matplotlib's options for a line."""
        return {"color": self.colour, "linestyle": self.line}

    def of_points(self) -> dict[str, Any]:
        """Return matplotlib's options for markers."""
        face = self.colour if self.filled else "white"
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": face, "markeredgecolor": self.colour}


Styles = dict[str, Style]


def style_of_control(controlled: Style, rule: str, taken: Collection[Style]) -> Style:
    """Return the style of a control: the colour of its split, hollow, and different from the styles that are `taken`."""
    line: Line = DOTTED if rule == "matched" else "--"
    markers = MATCHED_MARKERS if rule == "matched" else (controlled.marker, *MATCHED_MARKERS)
    styles = [Style(controlled.colour, line, marker, False) for marker in markers]
    return next((style for style in styles if style not in taken), styles[-1])


def split_styles(inputs: ReportInputs) -> Styles:
    """Return a different style for every split. The trained splits come first."""
    study = inputs.study
    # When colours repeat, lines and markers change.
    free = cycle(
        Style(colour, line, MARKERS[(place + turn) % len(MARKERS)], True)
        for turn, line in enumerate(LINES)
        for place, colour in enumerate(COLOURS)
    )
    found = {name: next(free) for name in dict.fromkeys([*study.of_rules(IMAGENET_LIKE, *BY_SIZE), *inputs.pruned])}
    for name in study.of_rules("full", "random", "matched"):
        controlled = found.get(str(study.splits[name].controls))
        if name == study.full():
            found[name] = Style(BLACK, "-", "o", True)
        elif name == study.reference_only():
            found[name] = Style(GREY, ":", "X", True)
        elif controlled is not None:
            found[name] = style_of_control(controlled, study.splits[name].rule, found.values())
        else:
            alike = next(free)
            found[name] = Style(alike.colour, "--", alike.marker, False)
    return found


@dataclass(frozen=True)
class FigureSpec:
    """One figure of a page.

    Attributes:
        name: Name of the file, without its suffix.
        section: Section of the page.
        caption: What the figure shows.
        alt: The same for readers who cannot see it.
        size: Width and height in inches.
        draw: Draws the figure.
    """

    name: str
    section: str
    caption: str
    alt: str
    size: tuple[float, float]
    draw: Callable[[Figure], None]

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"{self.name}.png"

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height in pixels."""
        dpi = SETTINGS["figure.dpi"]
        return round(self.size[0] * dpi), round(self.size[1] * dpi)


@contextmanager
def _settings() -> Iterator[None]:
    """Apply the settings, whatever the user's own settings of matplotlib are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def write_figures(specs: list[FigureSpec], folder: Path) -> None:
    """Draw every figure into a folder."""
    with _settings():
        for spec in progress(specs, len(specs), "figures", "figure"):
            figure = Figure(figsize=spec.size, layout="constrained")
            spec.draw(figure)
            # By default matplotlib writes its version into the file.
            figure.savefig(folder / spec.file, metadata={"Software": None})


def size_with_legend(entries: int, height: float = HEIGHT) -> tuple[float, float]:
    """Return the size of a figure with a legend of two columns below it."""
    return WIDTH, height + LEGEND_LINE * ((entries + 1) // 2)
