"""Draw the figures of claims A and B."""

from __future__ import annotations

from functools import partial

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simgap.report.figures.plots import Interval, apart, error_bars, in_percent, intervals, legend
from simgap.report.figures.style import LEGEND_LINE, LIGHT, WIDTH, FigureSpec, Styles, size_with_legend
from simgap.report.inputs import BY_SIZE, IMAGENET_LIKE
from simgap.store.estimates import Estimate
from simgap.store.study import Study


def _draw_gap(study: Study, styles: Styles, full: str, reference: str, figure: Figure) -> None:
    rows = []
    for benchmark in study.benchmarks:
        found = study.minus_full(reference, benchmark)
        if found is not None:
            gap = Estimate(-found.value, -found.high, -found.low)
            rows.append((benchmark, [Interval(gap, styles[full], full)]))
    axes = intervals(figure, rows, f"{full} minus {reference}, points of top-1 accuracy", [0])
    in_percent(axes, "x")


def _draw_shares(study: Study, styles: Styles, defined: list[tuple[str, str]], figure: Figure) -> None:
    rows = []
    for split, benchmark in defined:
        shares = {name: study.gap_explained(name, benchmark) for name in [split, *study.controls_of(split)]}
        found = [Interval(share, styles[name], name) for name, share in shares.items() if share is not None]
        rows.append((f"{benchmark}\n({study.rule_use(split, benchmark)})", found))
    axes = intervals(figure, rows, "share of the gap explained, per cent", [0, 1])
    # The axes cut off very wide intervals. A share of a small gap can have such an interval, which would squeeze the others.
    values = [interval.estimate.value for _, found in rows for interval in found]
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, min(-0.5, *values) - 0.5), min(high, max(1.5, *values) + 0.5))
    in_percent(axes, "x")
    legend(figure, axes)


def claim_a(study: Study, styles: Styles) -> list[FigureSpec]:
    """Return the figures of claim A: one of the gap, and one of the share of the gap that pruning explains.

    The gap is the accuracy of full minus the accuracy of the reference alone. The figure of the share is absent if no share is
    defined. Both figures are absent if full or the reference alone was not trained.
    """
    full, reference = study.full(), study.reference_only()
    if full is None or reference is None:
        return []
    specs = [
        FigureSpec(
            "claim-a-gap", "claim-a",
            f"The gap: accuracy of {full} minus accuracy of {reference}, with 95% intervals. Pruning can explain a share of the "
            "gap only if the interval lies completely above zero.",
            f"Dots with intervals: accuracy of {full} minus accuracy of {reference}, a line for each benchmark.",
            (WIDTH, 1.1 + 0.3 * len(study.benchmarks)), partial(_draw_gap, study, styles, full, reference),
        )
    ]  # fmt: skip
    defined = [
        (split, benchmark)
        for split in study.splits_by_rule(IMAGENET_LIKE)
        for benchmark in study.benchmarks
        if study.gap_explained(split, benchmark) is not None
    ]
    if defined:
        shown = {split: 1 + len(study.controls_of(split)) for split, _ in defined}
        height = 1.1 + 0.42 * len(defined) * max(1, max(shown.values()) / 2)
        specs.append(
            FigureSpec(
                "claim-a", "claim-a",
                "Claim A: the share of the gap that pruning explains (filled), and the share that controls explain (hollow). "
                "An interval that reaches the edge of the plot continues beyond the edge.",
                "Dots with intervals: share of the gap explained by every imagenet-like split and by its controls.",
                size_with_legend(sum(shown.values()), height), partial(_draw_shares, study, styles, defined),
            )
        )  # fmt: skip
    return specs


def _draw_differences(study: Study, styles: Styles, margin: float, figure: Figure) -> None:
    rows = []
    for benchmark in study.benchmarks:
        found = {split: study.minus_full(split, benchmark) for split in study.splits_by_rule(*BY_SIZE)}
        rows.append((benchmark, [Interval(of, styles[name], name) for name, of in found.items() if of is not None]))
    axes = intervals(figure, rows, f"split minus {study.full()}, points of top-1 accuracy", [0])
    axes.axvspan(-margin, margin, color=LIGHT, zorder=-1, linewidth=0, label="margin of equivalence")
    in_percent(axes, "x")
    legend(figure, axes, 1)


def _draw_sizes(study: Study, styles: Styles, splits: list[str], benchmark: str, figure: Figure) -> None:
    axes = figure.add_subplot()
    for split, x in apart({split: study.splits[split].kept for split in splits}).items():
        found = study.accuracy(split, benchmark)
        axes.errorbar(
            x, found.value, yerr=error_bars(found), capsize=2, linestyle="none", label=split, **styles[split].point_options(),
        )  # fmt: skip
    axes.set(xlabel="pool rows trained on", ylabel="top-1 accuracy, per cent", title=benchmark)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    in_percent(axes)
    legend(figure, axes)


def claim_b(study: Study, styles: Styles, margin: float) -> list[FigureSpec]:
    """Return the figures of claim B.

    One figure shows the differences to full. The other figures show accuracy against split size, one for each benchmark.
    """
    specs = []
    splits, full = study.splits_by_rule(*BY_SIZE), study.full()
    if splits and full:
        height = 1.1 + (0.2 + 0.2 * len(splits)) * len(study.benchmarks) + LEGEND_LINE * (len(splits) + 1)
        specs.append(
            FigureSpec(
                "claim-b", "claim-b",
                f"Claim B: accuracy of each split minus accuracy of {full}. A split is equivalent to {full} if the whole "
                "interval lies inside the grey band.",
                f"Dots with intervals: accuracy of every small split minus accuracy of {full}, a line for each benchmark.",
                (WIDTH, height), partial(_draw_differences, study, styles, margin),
            )
        )  # fmt: skip
    by_size = study.splits_by_rule("full", "random", *BY_SIZE)
    if len(by_size) > 1:
        specs += [
            FigureSpec(
                f"size-{benchmark}", "claim-b",
                f"Accuracy on {benchmark} against the number of pool rows. Splits of similar size are drawn side by side.",
                f"Accuracy on {benchmark} against split size, a dot with its interval for each split.",
                size_with_legend(len(by_size)), partial(_draw_sizes, study, styles, by_size, benchmark),
            )
            for benchmark in study.benchmarks
        ]  # fmt: skip
    return specs
