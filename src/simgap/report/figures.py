"""The report's figures as PNG files, whose bytes depend on the study alone.

Colours are those of Okabe & Ito (Color Universal Design, 2008), which colour-blind readers tell apart; line and marker say
the same again. A control has the colour of the split that it controls, dashed and hollow; one of the same composition is
dotted, with a marker of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.special import expit, logit

from simgap.core.progress import progress
from simgap.report.numbers import FORMATS
from simgap.report.study import BY_SIZE, IMAGENET_LIKE, Study

BLACK, GREY, LIGHT = "#000000", "#767676", "#D9D9D9"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
# Of controls of the same composition, and of second ones.
MATCHED_MARKERS = ("<", ">", "p", "h")
# A line of matplotlib: its name, or where it starts and the lengths of its dashes.
Line = str | tuple[int, tuple[float, ...]]
DOTTED: Line = (0, (1, 1.2))
LINES: tuple[Line, ...] = ("-", "-.", (0, (4, 1, 1, 1, 1, 1)))
# Options by name.
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
    # A class may have a dollar in its name.
    "text.parse_math": False,
}
# What a word over curves stands on.
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 1}
# Inches. As wide as a phone's page, so that letters stay legible where the picture is not enlarged.
WIDTH, HEIGHT = 4.2, 3.2
LEGEND_LINE = 0.17
# Of a curve that shows a distribution.
POINTS = 1000
# Classes of a figure, those of which most is pruned.
CLASSES = 20
# How far apart intervals of splits of the same size are drawn, as a share of the largest.
DODGE = 0.018
# Training steps that a smoothed loss is the mean of, as a share of all that were recorded.
SMOOTHED = 0.05


@dataclass(frozen=True)
class Style:
    """How a split is drawn."""

    colour: str
    line: Line
    marker: str
    filled: bool

    def of_line(self) -> dict[str, Any]:
        """Give matplotlib's options for a line."""
        return {"color": self.colour, "linestyle": self.line}

    def of_points(self) -> dict[str, Any]:
        """Give matplotlib's options for markers."""
        face = self.colour if self.filled else "white"
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": face, "markeredgecolor": self.colour}


def style_of_control(controlled: Style, rule: str, taken: Collection[Style]) -> Style:
    """Give a control the colour of its split, hollow, and where others of it are `taken`, a marker of its own."""
    line: Line = DOTTED if rule == "matched" else "--"
    markers = MATCHED_MARKERS if rule == "matched" else (controlled.marker, *MATCHED_MARKERS)
    looks = [Style(controlled.colour, line, marker, False) for marker in markers]
    return next((look for look in looks if look not in taken), looks[-1])


def split_styles(study: Study) -> dict[str, Style]:
    """Give every split a look of its own, the trained ones first."""
    # Where colours come again, lines and markers are others: of a control only the marker says which.
    free = cycle(
        Style(colour, line, MARKERS[(place + turn) % len(MARKERS)], True)
        for turn, line in enumerate(LINES)
        for place, colour in enumerate(COLOURS)
    )
    found = {name: next(free) for name in dict.fromkeys([*study.trained(IMAGENET_LIKE, *BY_SIZE), *study.pruned])}
    for name in study.trained("full", "random", "matched"):
        controls = study.splits[name]["controls"]
        if name == study.full():
            found[name] = Style(BLACK, "-", "o", True)
        elif name == study.reference_alone():
            found[name] = Style(GREY, ":", "X", True)
        elif controls in found:
            found[name] = style_of_control(found[controls], study.splits[name]["rule"], found.values())
        else:
            alike = next(free)
            found[name] = Style(alike.colour, "--", alike.marker, False)
    return found


@dataclass(frozen=True)
class FigureSpec:
    """One figure of the page.

    Attributes:
        name: of the file, without its suffix.
        section: of the page.
        caption, alt: what it shows, for readers and for those who cannot see it.
        size: inches.
        draw: draws it.
    """

    name: str
    section: str
    caption: str
    alt: str
    size: tuple[float, float]
    draw: Callable[[Figure], None]

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}.png"

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height of the picture."""
        dpi = SETTINGS["figure.dpi"]
        return round(self.size[0] * dpi), round(self.size[1] * dpi)


@contextmanager
def _settings() -> Iterator[None]:
    """Set what a figure looks like, whatever the reader's own matplotlib is set to."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def write_figures(drawings: list[FigureSpec], folder: Path) -> None:
    """Draw every figure into a folder."""
    with _settings():
        for drawing in progress(drawings, len(drawings), "figures", "figure"):
            figure = Figure(figsize=drawing.size, layout="constrained")
            drawing.draw(figure)
            # Matplotlib names its version in the file.
            figure.savefig(folder / drawing.file, metadata={"Software": None})


def _size(entries: int, height: float = HEIGHT) -> tuple[float, float]:
    """Give the size of a figure with a legend of two columns below it."""
    return WIDTH, height + LEGEND_LINE * ((entries + 1) // 2)


def legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Put the axes' legend below a figure."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def in_percent(axes: Axes, axis: str = "y") -> None:
    """Write the shares on an axis as per cent."""
    getattr(axes, f"{axis}axis").set_major_formatter(lambda share, _: FORMATS["number"](round(100 * share, 6)))


def _drawable(names: Sequence[str]) -> tuple[list[str], str]:
    """Give labels of names, numbers for those whose letters the font is without, and what a caption says of these.

    A font of the reader's own system would make other bytes of the same study.
    """
    font = get_font(findfont(FONT))
    missing = [name for name in names if not all(font.get_char_index(ord(letter)) for letter in name)]
    numbers = {name: f"({number})" for number, name in enumerate(dict.fromkeys(missing), 1)}
    said = ", ".join(f"{number} is {name}" for name, number in numbers.items())
    return [numbers.get(name, name) for name in names], f"; {said}" if said else ""


def _cumulative(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give ascending values and the share at or below each; of many values as many as a figure can show."""
    ordered = np.sort(values).astype(np.float64)
    shown = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), POINTS)).round().astype(np.int64))
    return ordered[shown], (shown + 1) / len(ordered)


def _steps(axes: Axes, values: NDArray[np.float32], label: str, options: dict[str, Any]) -> None:
    """Draw the share of values at or below x."""
    axes.step(*_cumulative(values), where="post", label=label, **options)


def _list_matrix(column: Any) -> NDArray[np.float32]:
    """Give lists of one length, or shorter where fewer rows are kept, as [queries, k]; NaN where there is none."""
    lengths = pc.list_value_length(column).to_numpy()
    matrix = np.full((len(lengths), lengths.max(initial=0)), np.nan, np.float32)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = pc.list_flatten(column).to_numpy()
    return matrix


def _value(study: Study, key: str) -> tuple[float, float, float]:
    return study.compared[key], study.compared[f"{key}/low"], study.compared[f"{key}/high"]


def _error(found: tuple[float, float, float]) -> list[list[float]]:
    value, low, high = found
    return [[max(value - low, 0)], [max(high - value, 0)]]


def _marks(study: Study, split: str, benchmark: str) -> str:
    return "used by the rule" if study.used(split, benchmark) else "held out"


def _rows_of_intervals(
    figure: Figure,
    rows: list[tuple[str, list[tuple[tuple[float, float, float], Style, str]]]],
    label: str,
    guides: list[float],
) -> Axes:
    """Draw figures with intervals, a line of the axes for each row of them."""
    axes = figure.add_subplot()
    seen: set[str] = set()
    for place, (_, found) in enumerate(rows):
        for number, (figures, look, name) in enumerate(found):
            y = place + (number - (len(found) - 1) / 2) * 0.28
            axes.errorbar(
                figures[0], y, xerr=_error(figures), capsize=2, linestyle="none",
                label=None if name in seen else name, **look.of_points(),
            )  # fmt: skip
            seen.add(name)
    for guide in guides:
        axes.axvline(guide, color=GREY, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label)
    return axes


def claim_a(study: Study, styles: dict[str, Style]) -> list[FigureSpec]:
    """The gap between full and the reference alone, and the share of it that pruning explains where it is above 0."""
    full, alone = study.full(), study.reference_alone()
    if full is None or alone is None:
        return []

    def gap(figure: Figure) -> None:
        rows = []
        for benchmark in study.benchmarks:
            value, low, high = _value(study, f"{alone}/{benchmark}/minus_full")
            rows.append((benchmark, [((-value, -high, -low), styles[full], full)]))
        axes = _rows_of_intervals(figure, rows, f"{full} minus {alone}, points of top-1 accuracy", [0])
        in_percent(axes, "x")

    drawings = [
        FigureSpec(
            "claim-a-gap", "claim-a",
            f"The gap: accuracy of {full} minus {alone}, with its interval. Only where it is wholly above zero is there a gap "
            "of which pruning could explain a share.",
            f"Dots with intervals: accuracy of {full} minus that of {alone}, a line for each benchmark.",
            (WIDTH, 1.1 + 0.3 * len(study.benchmarks)), gap,
        )
    ]  # fmt: skip
    defined = [
        (split, benchmark)
        for split in study.trained(IMAGENET_LIKE)
        for benchmark in study.benchmarks
        if study.has(f"{split}/{benchmark}/gap_explained")
    ]
    if defined:

        def shares(figure: Figure) -> None:
            rows = []
            for split, benchmark in defined:
                names = [split, *study.controls_of(split)]
                found = [(_value(study, f"{name}/{benchmark}/gap_explained"), styles[name], name) for name in names]
                rows.append((f"{benchmark}\n({_marks(study, split, benchmark)})", found))
            axes = _rows_of_intervals(figure, rows, "share of the gap explained, per cent", [0, 1])
            # An interval of a small gap may be very wide.
            values = [figures[0] for _, found in rows for figures, _, _ in found]
            low, high = axes.get_xlim()
            axes.set_xlim(max(low, min(-0.5, *values) - 0.5), min(high, max(1.5, *values) + 0.5))
            in_percent(axes, "x")
            legend(figure, axes)

        shown = {split: 1 + len(study.controls_of(split)) for split, _ in defined}
        entries = sum(shown.values())
        drawings.append(
            FigureSpec(
                "claim-a", "claim-a",
                "Claim A: the share of the gap that pruning explains, filled, and the same of its controls, hollow. Intervals "
                "that leave the axes go on beyond them.",
                "Dots with intervals: share of the gap explained by every imagenet-like split and by its controls.",
                _size(entries, 1.1 + 0.42 * len(defined) * max(1, max(shown.values()) / 2)), shares,
            )
        )  # fmt: skip
    return drawings


def _apart(places: dict[str, int]) -> dict[str, float]:
    """Move places that are nearly the same a little apart, so that intervals stand beside each other."""
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


def claim_b(study: Study, styles: dict[str, Style], margin: float) -> list[FigureSpec]:
    """Splits by size against full, and accuracy against size."""
    drawings = []
    splits, full = study.trained(*BY_SIZE), study.full()
    if splits and full:

        def differences(figure: Figure) -> None:
            rows = [
                (
                    benchmark,
                    [(_value(study, f"{split}/{benchmark}/minus_full"), styles[split], split) for split in splits],
                )
                for benchmark in study.benchmarks
            ]
            axes = _rows_of_intervals(figure, rows, f"split minus {full}, points of top-1 accuracy", [0])
            axes.axvspan(-margin, margin, color=LIGHT, zorder=-1, linewidth=0, label="margin of equivalence")
            in_percent(axes, "x")
            legend(figure, axes, 1)

        drawings.append(
            FigureSpec(
                "claim-b", "claim-b",
                f"Claim B: accuracy minus that of {full}. An interval wholly inside the grey band is equivalent.",
                f"Dots with intervals: accuracy of every split by size minus that of {full}, a line for each benchmark.",
                (WIDTH, 1.1 + (0.2 + 0.2 * len(splits)) * len(study.benchmarks) + LEGEND_LINE * (len(splits) + 1)), differences,
            )
        )  # fmt: skip
    by_size = study.trained("full", "random", *BY_SIZE)
    for benchmark in study.benchmarks:

        def sizes(figure: Figure, benchmark: str = benchmark) -> None:
            axes = figure.add_subplot()
            for split, x in _apart({split: study.splits[split]["kept"] for split in by_size}).items():
                found = _value(study, f"{split}/{benchmark}/accuracy")
                axes.errorbar(
                    x, found[0], yerr=_error(found), capsize=2, linestyle="none", label=split,
                    **styles[split].of_points(),
                )  # fmt: skip
            axes.set(xlabel="pool rows trained on", ylabel="top-1 accuracy, per cent", title=benchmark)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            in_percent(axes)
            legend(figure, axes)

        if len(by_size) > 1:
            drawings.append(
                FigureSpec(
                    f"size-{benchmark}", "claim-b",
                    f"Accuracy on {benchmark} by pool rows; splits of nearly the same size stand side by side.",
                    f"Accuracy on {benchmark} against split size, a dot with its interval for each split.",
                    _size(len(by_size)), sizes,
                )
            )  # fmt: skip
    return drawings


def similarity(study: Study, styles: dict[str, Style]) -> list[FigureSpec]:
    """Similarity profiles of reference, pool and splits, one figure a benchmark."""
    drawings = []
    kept = [split for split in study.runs if study.splits[split]["kept"] and split != study.full()]
    for benchmark in study.benchmarks:

        def profiles(figure: Figure, benchmark: str = benchmark) -> None:
            axes = figure.add_subplot()
            table = study.queries[benchmark]
            _steps(axes, table.column("pool_similarity").to_numpy(), "pool", {"color": BLACK})
            reference = table.column("reference_similarity").to_numpy()
            _steps(axes, reference, "reference", {"color": GREY, "linestyle": ":", "linewidth": 2})
            for split in kept:
                column = study.profile(split, benchmark).column("similarity")
                _steps(axes, column.to_numpy(), split, styles[split].of_line())
            axes.set(
                xlabel="similarity of a query to its nearest row, cosine",
                ylabel="queries at or below, per cent",
                title=benchmark,
            )
            in_percent(axes)
            legend(figure, axes)

        drawings.append(
            FigureSpec(
                f"profile-{benchmark}", "similarity",
                f"Similarity profiles of {benchmark}: further right is more similar. Splits are shown by their pool rows alone.",
                f"Cumulative shares of {benchmark} queries by similarity to pool, reference and every split.",
                _size(len(kept) + 2), profiles,
            )
        )  # fmt: skip
    return drawings


def thresholds(study: Study, styles: dict[str, Style]) -> list[FigureSpec]:
    """Rows that each imagenet-like rule would prune, against its threshold."""
    curves = {}
    for split in study.pruned:
        metrics = study.metrics.read(f"profile/{split}")
        prefix = "rows_pruned_at/"
        curves[split] = {float(k.removeprefix(prefix)): v for k, v in metrics.items() if k.startswith(prefix)}
    if not curves:
        return []
    rows = study.splits["full"]["kept"]

    def curve(figure: Figure) -> None:
        axes = figure.add_subplot()
        for split, pruned in curves.items():
            at = sorted(pruned)
            axes.plot(at, [pruned[t] / rows for t in at], label=split, **styles[split].of_line())
            chosen = study.splits[split]["threshold"]
            axes.plot(chosen, pruned[chosen] / rows, linestyle="none", **styles[split].of_points())
        axes.axvline(chosen, color=GREY, linewidth=0.8, zorder=0)
        axes.annotate(
            "chosen", (chosen, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points", va="top",
            color=GREY, bbox=BEHIND,
        )  # fmt: skip
        axes.set(xlabel="threshold, cosine", ylabel="rows of full pruned, per cent", ylim=(0, None))
        in_percent(axes)
        legend(figure, axes)

    return [
        FigureSpec(
            "thresholds", "thresholds",
            "What another threshold would prune, without training anything. The marks are at the threshold of this study.",
            "Share of rows pruned against the threshold, a falling curve for every imagenet-like split.",
            _size(len(curves)), curve,
        )
    ]  # fmt: skip


def _shares(figure: Figure, shares: NDArray[np.float64], rows: list[str], columns: list[str], title: str) -> None:
    """Draw shares, [rows, columns], as a table of shades with their figures in it."""
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="cividis_r", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
    axes.set_title(title, loc="left")


def marked_shares(study: Study) -> list[FigureSpec]:
    """Share pruned by style and by class, where the pool's marks name them."""
    drawings = []
    splits = [split for split in study.splits if study.splits[split]["rule"] != "full" and study.splits[split]["kept"]]
    for truth in study.truths:
        metrics = study.metrics.read(f"ground-truth/{truth}")
        for kind in ("style", "class"):
            prefix = f"full/pruned_share/{kind}/"
            names = sorted(key.removeprefix(prefix) for key in metrics if key.startswith(prefix))
            if not names or not splits:
                continue
            caption = f"Share of pool rows that each split is without, by {kind}"
            if len(names) > CLASSES:
                # Whatever the number of classes, a figure that can be read.
                pruned = [-sum(metrics[f"{split}/pruned_share/{kind}/{name}"] for split in splits) for name in names]
                names = [names[place] for place in np.argsort(pruned, kind="stable")[:CLASSES]]
                caption += f": the {CLASSES} of which most is pruned"
            labels, numbered = _drawable(names)

            def shades(
                figure: Figure,
                metrics: Any = metrics,
                kind: str = kind,
                names: list[str] = names,
                labels: list[str] = labels,
            ) -> None:
                shares = np.array(
                    [[metrics[f"{split}/pruned_share/{kind}/{name}"] for name in names] for split in splits]
                )
                _shares(figure, shares, splits, labels, f"rows pruned by {kind}, per cent")

            drawings.append(
                FigureSpec(
                    f"pruned-by-{kind}-{truth}", "pruned", f"{caption}{numbered}.",
                    f"Table of shades: share of rows pruned, a line for each split and a column for each {kind}.",
                    (2.4 + 0.42 * len(names), 1.4 + 0.24 * len(splits)), shades,
                )
            )  # fmt: skip
    return drawings


def class_shares(study: Study) -> list[FigureSpec]:
    """Share pruned by the class of the nearest query, which every pool has."""
    drawings = []
    for benchmark in study.benchmarks:
        split = study.shown_for(benchmark)
        if split is None:
            continue
        table = study.classes(split, benchmark)
        of_full, kept = (table.column(name).to_numpy() for name in ("rows_of_full", "kept"))
        present = np.flatnonzero(of_full)
        share = 1 - kept[present] / of_full[present]
        order = np.argsort(-share, kind="stable")[:CLASSES]
        labels, numbered = _drawable([study.classnames[benchmark][label] for label in present[order]])

        def bars(
            figure: Figure, benchmark: str = benchmark, share: Any = share[order], labels: list[str] = labels
        ) -> None:
            axes = figure.add_subplot()
            axes.barh(range(len(share)), share, color=COLOURS[0], height=0.7)
            axes.set_yticks(range(len(share)), labels)
            axes.set_ylim(len(share) - 0.4, -0.6)
            axes.set(xlabel="rows pruned, per cent", title=benchmark, xlim=(0, 1))
            axes.grid(axis="y", visible=False)
            in_percent(axes, "x")

        drawings.append(
            FigureSpec(
                f"pruned-by-nearest-class-{benchmark}", "pruned",
                f"Share of rows that {split} is without, by the class of the nearest {benchmark} query"
                + (": the classes of which most is pruned" if len(present) > CLASSES else "") + f"{numbered}.",
                f"Bars: share of pool rows pruned for each class of {benchmark}.",
                (WIDTH, 1 + 0.22 * len(order)), bars,
            )
        )  # fmt: skip
    return drawings


def neighbourhoods(study: Study, styles: dict[str, Style]) -> list[FigureSpec]:
    """The k nearest rows of every query, before and after pruning."""
    drawings = []
    for benchmark in study.benchmarks:
        after = study.shown_for(benchmark)
        control = study.control_of(after) if after in study.runs else None
        shown = [name for name in (after, control) if name]

        def ranks(figure: Figure, benchmark: str = benchmark, shown: list[str] = shown) -> None:
            axes = figure.add_subplot()
            before = _list_matrix(study.queries[benchmark].column("nearest_similarities"))
            sets = [("pool, before pruning", before, Style(BLACK, "-", "o", True))]
            for name in shown:
                nearest = _list_matrix(study.profile(name, benchmark).column("nearest_similarities"))
                sets.append((name, nearest, styles[name]))
            for name, nearest, look in sets:
                if nearest.shape[1]:
                    low, middle, high = np.nanquantile(nearest.astype(np.float64), (0.25, 0.5, 0.75), axis=0)
                    rank = np.arange(1, nearest.shape[1] + 1)
                    axes.fill_between(rank, low, high, color=look.colour, alpha=0.15, linewidth=0)
                    axes.plot(rank, middle, label=name, linestyle=look.line, **look.of_points())
            reference = study.queries[benchmark].column("reference_similarity").to_numpy().astype(np.float64)
            axes.axhline(
                np.median(reference), color=GREY, linestyle=":", linewidth=2, label="reference, its nearest row"
            )
            axes.set(xlabel="rank among a query's nearest rows", ylabel="similarity, cosine", title=benchmark)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            legend(figure, axes, 1)

        drawings.append(
            FigureSpec(
                f"neighbours-{benchmark}", "neighbourhoods",
                f"The nearest rows of {benchmark} queries by rank: median over queries, and the middle half of them as a band.",
                f"Similarity of {benchmark} queries to their nearest rows by rank, before and after pruning.",
                (WIDTH, HEIGHT + LEGEND_LINE * (len(shown) + 2)), ranks,
            )
        )  # fmt: skip
    return drawings


def leaks(study: Study, styles: dict[str, Style], threshold: float) -> list[FigureSpec]:
    """How similar queries are to the pool, and accuracy with and without those that have a copy in it."""

    def tails(figure: Figure) -> None:
        axes = figure.add_subplot()
        shapes = cycle((colour, line) for line in ("-", "--", "-.") for colour in COLOURS)
        lowest = 1.0
        for benchmark, (colour, line) in zip(study.benchmarks, shapes, strict=False):
            lower, share = _cumulative(-study.queries[benchmark].column("pool_similarity").to_numpy())
            axes.step(-lower, share, color=colour, linestyle=line, label=benchmark)
            lowest = min(lowest, -float(np.median(lower)))
        axes.axvline(threshold, color=GREY, linewidth=0.8)
        axes.annotate(
            "threshold", (threshold, 1), xycoords=("data", "axes fraction"), xytext=(-3, -2), textcoords="offset points",
            va="top", ha="right", color=GREY, bbox=BEHIND,
        )  # fmt: skip
        axes.set(xlabel="similarity to the nearest pool row, cosine", ylabel="queries at or above, per cent")
        axes.set_xlim(min(lowest, threshold), None)
        axes.set_ylim(0, 0.5)
        in_percent(axes)
        legend(figure, axes)

    drawings = [
        FigureSpec(
            "leaks-similarity", "leaks",
            "The most similar half of each benchmark's queries: right of the threshold a query counts as copied.",
            "Share of queries at or above a similarity to the pool, a falling curve for each benchmark.",
            _size(len(study.benchmarks)), tails,
        )
    ]  # fmt: skip
    split = study.full() or study.runs[0]
    figures = {"all images": "accuracy", "without copied ones": "without_copies", "copied ones alone": "of_copies"}

    def with_and_without(figure: Figure) -> None:
        places = zip(figures.items(), (BLACK, COLOURS[0], COLOURS[1]), MARKERS, strict=False)
        kinds = [(name, key, Style(colour, "-", marker, True)) for (name, key), colour, marker in places]
        rows = [
            (
                benchmark,
                [
                    (_value(study, f"{split}/{benchmark}/{key}"), look, name)
                    for name, key, look in kinds
                    if study.has(f"{split}/{benchmark}/{key}")
                ],
            )
            for benchmark in study.benchmarks
        ]
        axes = _rows_of_intervals(figure, rows, f"top-1 accuracy of {split}, per cent", [])
        in_percent(axes, "x")
        legend(figure, axes, 1)

    drawings.append(
        FigureSpec(
            "leaks-accuracy", "leaks", f"Accuracy of {split} with and without the images that have a copy in the pool.",
            f"Dots with intervals: accuracy of {split} on all images, on those without a copy and on copied ones.",
            (WIDTH, 1.2 + 0.55 * len(study.benchmarks) + 3 * LEGEND_LINE), with_and_without,
        )
    )  # fmt: skip
    return drawings


def by_similarity(study: Study, styles: dict[str, Style]) -> list[FigureSpec]:
    """Accuracy in the fifths of a benchmark's images by similarity."""
    rows = [row for row in study.table("by_similarity") if row["bins"] == "fifth"]
    shown = [
        split for split in study.runs if study.splits[split]["rule"] != "random" or not study.splits[split]["kept"]
    ]
    drawings = []
    for benchmark in study.benchmarks:

        def lines(figure: Figure, benchmark: str = benchmark) -> None:
            axes = figure.add_subplot()
            for split in shown:
                found = [row for row in rows if (row["split"], row["benchmark"]) == (split, benchmark)]
                x = [(float(row["similarity_from"]) + float(row["similarity_to"])) / 2 for row in found]
                y = [float(row["value"]) for row in found]
                if split == study.full():
                    errors = [_error((float(row["value"]), float(row["low"]), float(row["high"]))) for row in found]
                    axes.errorbar(
                        x, y, yerr=np.array(errors)[:, :, 0].T, color=BLACK, linewidth=0, elinewidth=0.8, capsize=2
                    )
                axes.plot(x, y, label=split, linestyle=styles[split].line, **styles[split].of_points())
            axes.set(
                xlabel="similarity to what the split was trained on, cosine",
                ylabel="top-1 accuracy, per cent",
                title=benchmark,
            )
            in_percent(axes)
            legend(figure, axes)

        if rows:
            drawings.append(
                FigureSpec(
                    f"by-similarity-{benchmark}", "by-similarity",
                    f"Accuracy on {benchmark} by fifths of its images, at the middle of each fifth's similarities; the interval "
                    "is that of the full pool's split. Controls are in by_similarity.csv.",
                    f"Accuracy on {benchmark} against similarity to the training data, a line for each split.",
                    _size(len(shown)), lines,
                )
            )  # fmt: skip
    return drawings


def robustness(study: Study, styles: dict[str, Style]) -> list[FigureSpec]:
    """Accuracy under a shift against accuracy without, with the fitted line."""
    fitted = {
        row["benchmark"]: {key: float(row[key]) for key in row if key != "benchmark"} for row in study.table("lines")
    }
    drawings = []
    for benchmark in study.benchmarks:
        if benchmark == study.in_distribution_benchmark:
            continue

        def points(figure: Figure, benchmark: str = benchmark) -> None:
            axes = figure.add_subplot()
            for split in study.runs:
                x, y = (
                    _value(study, f"{split}/{name}/accuracy") for name in (study.in_distribution_benchmark, benchmark)
                )
                axes.errorbar(
                    x[0], y[0], xerr=_error(x), yerr=_error(y), linestyle="none", label=split, elinewidth=0.7,
                    **styles[split].of_points(),
                )  # fmt: skip
            if benchmark in fitted:
                line, (low, high) = fitted[benchmark], axes.get_xlim()
                for start, stop, dash in ((low, high, ":"), (line["first"], line["last"], "-")):
                    x_line = np.clip(np.linspace(start, stop, 60), 0.005, 0.995)
                    y_line = expit(line["slope"] * logit(x_line) + line["intercept"])
                    label = "fitted line" if dash == "-" else None
                    axes.plot(x_line, y_line, color=GREY, linestyle=dash, linewidth=1.2, label=label, zorder=0)
                axes.set_xlim(low, high)
            axes.set(
                xlabel=f"top-1 accuracy on {study.in_distribution_benchmark}, per cent",
                ylabel=f"on {benchmark}, per cent",
                title=benchmark,
            )
            in_percent(axes, "x")
            in_percent(axes)
            legend(figure, axes)

        drawings.append(
            FigureSpec(
                f"robustness-{benchmark}", "robustness",
                f"Accuracy on {benchmark} against {study.in_distribution_benchmark}"
                + (
                    "; the line is fitted on the full pool's and the random splits' logits, dotted beyond them."
                    if benchmark in fitted
                    else ": the random splits are too few for a line."
                ),
                f"Accuracy on {benchmark} against accuracy on {study.in_distribution_benchmark}, a dot with intervals for "
                "each split.",
                _size(len(study.runs) + 1), points,
            )
        )  # fmt: skip
    return drawings


def few_shot(study: Study, styles: dict[str, Style]) -> list[FigureSpec]:
    """Few-shot accuracy against the number of shots."""
    rows = study.table("few_shot")
    drawings = []
    for benchmark in study.benchmarks:
        of_benchmark = [row for row in rows if row["benchmark"] == benchmark]

        def curves(figure: Figure, benchmark: str = benchmark, rows: list[dict[str, str]] = of_benchmark) -> None:
            axes = figure.add_subplot()
            shots = sorted({int(row["shots"]) for row in rows})
            for split in study.runs:
                found = sorted((row for row in rows if row["split"] == split), key=lambda row: int(row["shots"]))
                axes.errorbar(
                    [int(row["shots"]) for row in found], [float(row["mean"]) for row in found],
                    yerr=[float(row["spread"] or 0) for row in found], elinewidth=0.5, label=split,
                    linestyle=styles[split].line, **styles[split].of_points(),
                )  # fmt: skip
            axes.set_xscale("log", base=2)
            axes.set_xticks(shots, [str(count) for count in shots])
            axes.set(xlabel="reference images a class", ylabel="few-shot accuracy, per cent", title=benchmark)
            in_percent(axes)
            legend(figure, axes)

        if of_benchmark:
            drawings.append(
                FigureSpec(
                    f"few-shot-{benchmark}", "few-shot",
                    f"Few-shot accuracy on {benchmark}: mean and standard deviation over seeds and draws of the shots.",
                    f"Few-shot accuracy on {benchmark} against the number of shots, a line for each split.",
                    _size(len(study.runs)), curves,
                )
            )  # fmt: skip
    return drawings


def training(study: Study, styles: dict[str, Style]) -> list[FigureSpec]:
    """The loss of every run."""

    def losses(figure: Figure) -> None:
        axes = figure.add_subplot()
        for split in study.runs:
            for number, seed in enumerate(study.seeds):
                steps, loss = np.array(study.metrics.read(f"train/{split}-{seed}")["loss"], np.float64).T
                width = max(1, round(SMOOTHED * len(loss)))
                smooth = np.convolve(loss, np.full(width, 1 / width), "valid")
                axes.plot(
                    steps[width - 1 :], smooth, linewidth=1, label=None if number else split, **styles[split].of_line()
                )
        axes.set(xlabel="step", ylabel="contrastive loss, nats")
        legend(figure, axes)

    return [
        FigureSpec(
            "training", "training", "Training loss, a running mean; a line for each split and seed.",
            "Contrastive loss against training step, a falling line for each split and seed.",
            _size(len(study.runs), 3.6), losses,
        )
    ]  # fmt: skip


def drawings_of(study: Study, margin: float, threshold: float) -> list[FigureSpec]:
    """Give all figures of a study.

    Args:
        margin: of equivalence.
        threshold: above which an image counts as copied.
    """
    styles = split_styles(study)
    return [
        *claim_a(study, styles),
        *claim_b(study, styles, margin),
        *similarity(study, styles),
        *thresholds(study, styles),
        *marked_shares(study),
        *class_shares(study),
        *neighbourhoods(study, styles),
        *leaks(study, styles, threshold),
        *by_similarity(study, styles),
        *robustness(study, styles),
        *few_shot(study, styles),
        *training(study, styles),
    ]
