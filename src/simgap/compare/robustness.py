"""Relative and effective robustness (Taori et al., Measuring Robustness to Natural Distribution Shifts, NeurIPS 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from simgap.compare.bootstrap import (
    Estimate,
    Figures,
    estimate,
    estimate_where_defined,
    model_accuracies,
    over_seeds,
)
from simgap.compare.resamples import Resamples
from simgap.compare.study import Study
from simgap.core.progress import progress


@dataclass(frozen=True)
class Robustness:
    """One split on one benchmark with a distribution shift.

    Attributes:
        relative: accuracy minus that of full, None where full was not trained.
        effective: accuracy minus what the line predicts from the accuracy without shift, None where there is no line.
        beyond_the_line: whether the split's accuracy without shift lies outside those that the line was fitted on.
    """

    relative: Estimate | None
    effective: Estimate | None
    beyond_the_line: bool


@dataclass(frozen=True)
class Line:
    """Of the accuracy under a shift on the accuracy without, both as logits.

    Attributes:
        slope, intercept: of the logits.
        first, last: the smallest and the largest accuracy without shift that it was fitted on.
    """

    slope: float
    intercept: float
    first: float
    last: float


def clipped_logit(accuracies: Figures, images: int) -> Figures:
    """Give the logit of accuracies clipped to [1 / 2n, 1 - 1 / 2n], of n images."""
    edge = 1 / (2 * images)
    logits: Figures = logit(np.clip(accuracies, edge, 1 - edge))
    return logits


def fit_line(x: Figures, y: Figures, weights: Figures) -> tuple[Figures, Figures]:
    """Fit a line by weighted least squares in each row of [rows, points]: slopes and intercepts, [rows].

    They are NaN where x does not vary.
    """
    total = weights.sum(axis=1)
    mean_x, mean_y = (x * weights).sum(axis=1) / total, (y * weights).sum(axis=1) / total
    from_x, from_y = x - mean_x[:, None], y - mean_y[:, None]
    variance = (weights * from_x**2).sum(axis=1)
    # What rounding leaves of a variance of zero is not one.
    variance[variance <= 1e-20 * total] = np.nan
    slopes = (weights * from_x * from_y).sum(axis=1) / variance
    return slopes, mean_y - slopes * mean_x


def random_splits(study: Study) -> list[str]:
    """Name the splits that the line is fitted on, full and the random ones; none where they are of fewer than two sizes."""
    names = [name for name, split in study.splits.items() if split.rule in ("full", "random") and split.kept]
    return names if len({study.splits[name].kept for name in names}) > 1 else []


def fitted_lines(study: Study, in_distribution_benchmark: str) -> dict[str, Line]:
    """Give the line as measured, by benchmark with a shift; none where there are too few random splits or x does not vary."""
    baselines = random_splits(study)
    if not baselines:
        return {}

    def of_models(benchmark: str) -> Figures:
        return np.concatenate([study.correct[split, benchmark].mean(axis=1) for split in baselines])[None]

    def logits(benchmark: str) -> Figures:
        return clipped_logit(of_models(benchmark), len(study.labels[benchmark]))

    plain, x = of_models(in_distribution_benchmark), logits(in_distribution_benchmark)
    lines = {}
    for benchmark in study.benchmarks:
        if benchmark != in_distribution_benchmark:
            slopes, intercepts = fit_line(x, logits(benchmark), np.ones_like(x))
            if np.isfinite(slopes[0]):
                lines[benchmark] = Line(float(slopes[0]), float(intercepts[0]), float(plain.min()), float(plain.max()))
    return lines


def robustness(study: Study, resamples: Resamples, in_distribution_benchmark: str) -> dict[str, dict[str, Robustness]]:
    """Give the robustness, by benchmark and split, of every split that the line is not fitted on, to every shift.

    The line predicts a model's accuracy under the shift from its accuracy without, both as logits, by least squares over
    the models of the random splits: what training on less of the pool does by itself. Effective robustness is the residual,
    as a difference of accuracies.

    Args:
        in_distribution_benchmark: the benchmark without distribution shift.
    """
    baselines, full = random_splits(study), study.full()
    seeds = {split: resamples.seeds(split) for split in study.splits}

    def of_models(benchmark: str) -> dict[str, Figures]:
        images = resamples.images(benchmark)
        return {split: model_accuracies(study.correct[split, benchmark], images) for split in study.splits}

    def logits(accuracies: Figures, benchmark: str) -> Figures:
        return clipped_logit(accuracies, len(study.labels[benchmark]))

    def joined(accuracies: dict[str, Figures]) -> Figures:
        return np.concatenate([accuracies[split] for split in baselines], axis=1)

    plain = of_models(in_distribution_benchmark)
    result: dict[str, dict[str, Robustness]] = {}
    shifts = [benchmark for benchmark in study.benchmarks if benchmark != in_distribution_benchmark]
    for benchmark in progress(shifts, len(shifts), "robustness", "benchmark"):
        of_splits = result[benchmark] = {}
        shifted, count = of_models(benchmark), len(study.labels[benchmark])
        if baselines:
            slopes, intercepts = fit_line(
                logits(joined(plain), in_distribution_benchmark), logits(joined(shifted), benchmark), joined(seeds)
            )
            fitted = joined(plain)[0]
        for split in study.splits:
            if split in baselines or split == full:
                continue
            relative, effective, beyond = None, None, False
            if full:
                relative = estimate(
                    over_seeds(shifted[split], seeds[split]) - over_seeds(shifted[full], seeds[full]), count
                )
            if baselines:
                predicted = expit(
                    slopes[:, None] * logits(plain[split], in_distribution_benchmark) + intercepts[:, None]
                )
                effective = estimate_where_defined(over_seeds(shifted[split] - predicted, seeds[split]), count)
                beyond = not fitted.min() <= plain[split][0].mean() <= fitted.max()
            of_splits[split] = Robustness(relative, effective, beyond)
    return result
