"""Define the style of all figures. Figures are PNG files. Their bytes depend only on the study.

The colours are a palette by Okabe & Ito (Color Universal Design, 2008) that colour-blind readers can tell apart. Splits of the
same colour have different lines or markers. A control has the colour of the split that it controls, a dashed line and a hollow
marker. A matched control has the same share of each class or style as its split. It has a dotted line and another marker.
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
# These are the markers of matched controls and of second random controls. The first control has the marker of its split.
MATCHED_MARKERS = ("<", ">", "p", "h")
# Matplotlib describes a line by a name, or by an offset and the lengths of its dashes.
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
    # The name of a class may contain a dollar sign, which matplotlib would read as the start of a formula.
    "text.parse_math": False,
}
# Sizes are in inches. A figure is as wide as the page on a phone, because its text must be legible without zooming.
WIDTH, HEIGHT = 4.2, 3.2
LEGEND_LINE = 0.17


@dataclass(frozen=True)
class Style:
    """The colour, line and marker of a split in all figures.

    Attributes:
        colour: The colour in hexadecimal notation.
        line: The style of the line, as matplotlib describes it.
        marker: The marker, as matplotlib names it.
        filled: Whether the marker is filled. The markers of controls are hollow.
    """

    colour: str
    line: Line
    marker: str
    filled: bool

    def line_options(self) -> dict[str, Any]:
        """Return the keyword arguments that make matplotlib draw a line in this style."""
        return {"color": self.colour, "linestyle": self.line}

    def point_options(self) -> dict[str, Any]:
        """Return the keyword arguments that make matplotlib draw markers in this style."""
        face = self.colour if self.filled else "white"
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": face, "markeredgecolor": self.colour}


Styles = dict[str, Style]


def style_of_control(controlled: Style, rule: str, taken: Collection[Style]) -> Style:
    """Return the style of a control. It has the colour of the split and a hollow marker.

    Args:
        controlled: The style of the split that the control belongs to.
        rule: The rule of the control, `random` or `matched`.
        taken: The styles of other splits. The new style differs from these styles if an unused marker is left.
    """
    line: Line = DOTTED if rule == "matched" else "--"
    markers = MATCHED_MARKERS if rule == "matched" else (controlled.marker, *MATCHED_MARKERS)
    styles = [Style(controlled.colour, line, marker, False) for marker in markers]
    return next((style for style in styles if style not in taken), styles[-1])


def split_styles(inputs: ReportInputs) -> Styles:
    """Return a style for every trained split and every imagenet-like split, by split name.

    Different splits have different styles. Trained splits get the first styles.
    """
    study = inputs.study
    # A large study has more splits than there are colours. When a colour repeats, the line and the marker change.
    free = cycle(
        Style(colour, line, MARKERS[(place + turn) % len(MARKERS)], True)
        for turn, line in enumerate(LINES)
        for place, colour in enumerate(COLOURS)
    )
    found = {
        name: next(free) for name in dict.fromkeys([*study.splits_by_rule(IMAGENET_LIKE, *BY_SIZE), *inputs.pruned])
    }
    for name in study.splits_by_rule("full", "random", "matched"):
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
    """The specification of one figure of a page.

    Attributes:
        name: The name of the file, without the suffix.
        section: The section of the page that shows the figure.
        caption: The caption below the figure.
        alt: The text that screen readers read instead of the figure.
        size: The width and the height in inches.
        draw: A function that draws into an empty matplotlib figure.
    """

    name: str
    section: str
    caption: str
    alt: str
    size: tuple[float, float]
    draw: Callable[[Figure], None]

    @property
    def file(self) -> str:
        """The name of the image file, with the suffix."""
        return f"{self.name}.png"

    @property
    def pixels(self) -> tuple[int, int]:
        """The width and the height of the image in pixels."""
        dpi = SETTINGS["figure.dpi"]
        return round(self.size[0] * dpi), round(self.size[1] * dpi)


@contextmanager
def _settings() -> Iterator[None]:
    """Apply `SETTINGS` inside the `with` block. The user's own matplotlib settings are ignored there."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def write_figures(specs: list[FigureSpec], folder: Path) -> None:
    """Draw every figure, and write it into a folder as a PNG file."""
    with _settings():
        for spec in progress(specs, len(specs), "figures", "figure"):
            figure = Figure(figsize=spec.size, layout="constrained")
            spec.draw(figure)
            # The file must not contain the version of matplotlib, because its bytes would change with every version.
            figure.savefig(folder / spec.file, metadata={"Software": None})


def size_with_legend(entries: int, height: float = HEIGHT) -> tuple[float, float]:
    """Return the width and the height, in inches, of a figure with a legend of two columns below the plot.

    Args:
        entries: The number of entries in the legend.
        height: The height of the plot without the legend, in inches.
    """
    return WIDTH, height + LEGEND_LINE * ((entries + 1) // 2)
