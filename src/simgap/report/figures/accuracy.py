"""Draw the figures of accuracy: by similarity, under a distribution shift, and few-shot."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import expit, logit

from simgap.report.figures.plots import error_bars, in_percent, legend
from simgap.report.figures.style import BLACK, GREY, FigureSpec, Styles, size_with_legend
from simgap.report.inputs import ReportInputs
from simgap.store.study import Study
from simgap.store.tables import Row, estimate_of


def _draw_by_similarity(
    study: Study, styles: Styles, rows: list[Row], splits: list[str], benchmark: str, figure: Figure
) -> None:
    axes = figure.add_subplot()
    for split in splits:
        found = [row for row in rows if (row["split"], row["benchmark"]) == (split, benchmark)]
        x = [(float(row["similarity_from"]) + float(row["similarity_to"])) / 2 for row in found]
        estimates = [estimate_of(row) for row in found]
        y = [estimate.value for estimate in estimates]
        if split == study.full():
            errors = np.array([error_bars(estimate) for estimate in estimates])[:, :, 0].T
            axes.errorbar(x, y, yerr=errors, color=BLACK, linewidth=0, elinewidth=0.8, capsize=2)
        axes.plot(x, y, label=split, linestyle=styles[split].line, **styles[split].point_options())
    axes.set(
        xlabel="similarity to what the split was trained on, cosine", ylabel="top-1 accuracy, per cent", title=benchmark
    )
    in_percent(axes)
    legend(figure, axes)


def by_similarity(inputs: ReportInputs, styles: Styles) -> list[FigureSpec]:
    """Return one figure for each benchmark: the accuracy in each quintile of the images by similarity."""
    study = inputs.study
    rows = [row for row in inputs.table("by_similarity") if row["bins"] == "fifth"]
    splits = [name for name, split in study.splits.items() if split.rule != "random" or not split.kept]
    if not rows:
        return []
    return [
        FigureSpec(
            f"by-similarity-{benchmark}", "by-similarity",
            f"Accuracy on {benchmark} in each quintile of the images by similarity. A point lies in the middle of the "
            "similarities of its quintile. The intervals belong to full. by_similarity.csv also has the controls.",
            f"Accuracy on {benchmark} against similarity to the training data, a line for each split.",
            size_with_legend(len(splits)), partial(_draw_by_similarity, study, styles, rows, splits, benchmark),
        )
        for benchmark in study.benchmarks
    ]  # fmt: skip


def _draw_line(axes: Axes, line: dict[str, float]) -> None:
    """Draw the fitted line over the whole axes. The line is dotted outside the range of accuracies that it was fitted to."""
    low, high = axes.get_xlim()
    for start, stop, dash, label in ((low, high, ":", None), (line["first"], line["last"], "-", "fitted line")):
        x = np.clip(np.linspace(start, stop, 60), 0.005, 0.995)
        y = expit(line["slope"] * logit(x) + line["intercept"])
        axes.plot(x, y, color=GREY, linestyle=dash, linewidth=1.2, label=label, zorder=0)
    axes.set_xlim(low, high)


def _draw_robustness(
    study: Study, styles: Styles, line: dict[str, float] | None, benchmarks: tuple[str, str], figure: Figure
) -> None:
    axes = figure.add_subplot()
    for split in study.splits:
        x, y = (study.accuracy(split, name) for name in benchmarks)
        axes.errorbar(
            x.value, y.value, xerr=error_bars(x), yerr=error_bars(y), linestyle="none", label=split, elinewidth=0.7,
            **styles[split].point_options(),
        )  # fmt: skip
    if line is not None:
        _draw_line(axes, line)
    axes.set(
        xlabel=f"top-1 accuracy on {benchmarks[0]}, per cent",
        ylabel=f"on {benchmarks[1]}, per cent",
        title=benchmarks[1],
    )
    in_percent(axes, "x")
    in_percent(axes)
    legend(figure, axes)


def robustness(inputs: ReportInputs, styles: Styles) -> list[FigureSpec]:
    """Return figures of the accuracy under a distribution shift against the in-distribution accuracy.

    There is one figure for each benchmark with a distribution shift. It shows the fitted line if there is one.
    """
    study, in_distribution = inputs.study, inputs.in_distribution_benchmark
    lines = {
        row["benchmark"]: {key: float(row[key]) for key in row if key != "benchmark"} for row in inputs.table("lines")
    }
    with_line = (
        ". The line is fitted to the logits of full and of the random splits. It is dotted outside their accuracies."
    )
    without_line = ". There are too few random splits for a line."
    return [
        FigureSpec(
            f"robustness-{benchmark}", "robustness",
            f"Accuracy on {benchmark} against {in_distribution}" + (with_line if benchmark in lines else without_line),
            f"Accuracy on {benchmark} against accuracy on {in_distribution}, a dot with intervals for each split.",
            size_with_legend(len(study.splits) + 1),
            partial(_draw_robustness, study, styles, lines.get(benchmark), (in_distribution, benchmark)),
        )
        for benchmark in study.benchmarks
        if benchmark != in_distribution
    ]  # fmt: skip


def _draw_few_shot(study: Study, styles: Styles, rows: list[Row], benchmark: str, figure: Figure) -> None:
    axes = figure.add_subplot()
    shots = sorted({int(row["shots"]) for row in rows})
    for split in study.splits:
        found = sorted((row for row in rows if row["split"] == split), key=lambda row: int(row["shots"]))
        axes.errorbar(
            [int(row["shots"]) for row in found], [float(row["mean"]) for row in found],
            yerr=[float(row["spread"] or 0) for row in found], elinewidth=0.5, label=split, linestyle=styles[split].line,
            **styles[split].point_options(),
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [str(count) for count in shots])
    axes.set(xlabel="reference images per class", ylabel="few-shot accuracy, per cent", title=benchmark)
    in_percent(axes)
    legend(figure, axes)


def few_shot(inputs: ReportInputs, styles: Styles) -> list[FigureSpec]:
    """Return figures of few-shot accuracy against the number of shots. Benchmarks without few-shot results are skipped."""
    study, rows = inputs.study, inputs.table("few_shot")
    by_benchmark = {name: [row for row in rows if row["benchmark"] == name] for name in study.benchmarks}
    return [
        FigureSpec(
            f"few-shot-{benchmark}", "few-shot",
            f"Few-shot accuracy on {benchmark}. Points show the mean, and bars the standard deviation, over seeds and random "
            "choices of the shots.",
            f"Few-shot accuracy on {benchmark} against the number of shots, a line for each split.",
            size_with_legend(len(study.splits)), partial(_draw_few_shot, study, styles, found, benchmark),
        )
        for benchmark, found in by_benchmark.items()
        if found
    ]  # fmt: skip
