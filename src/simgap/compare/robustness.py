"""Compute relative and effective robustness.

The definitions are from Taori et al., Measuring Robustness to Natural Distribution Shifts, NeurIPS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from simgap.compare.bootstrap import Resampled, estimate, estimate_if_defined, model_accuracies, over_seeds
from simgap.compare.outcomes import Outcomes
from simgap.compare.resamples import Resamples
from simgap.core.progress import progress
from simgap.store.estimates import Estimate


@dataclass(frozen=True)
class Robustness:
    """The robustness of a split to the distribution shift of a benchmark.

    Attributes:
        relative: The accuracy of the split minus the accuracy of full. None if full was not trained.
        effective: The accuracy of the split minus the accuracy that the line predicts. None if there is no line.
        beyond_the_line: Whether the in-distribution accuracy of the split lies outside the range of accuracies that the line
            was fitted to.
    """

    relative: Estimate | None
    effective: Estimate | None
    beyond_the_line: bool


@dataclass(frozen=True)
class Line:
    """A line that predicts the accuracy under a shift from the in-distribution accuracy. Both accuracies are logits.

    Attributes:
        slope, intercept: The coefficients of the line.
        first, last: The smallest and the largest in-distribution accuracy that the line was fitted to. These two are not
            logits, but accuracies in [0, 1].
    """

    slope: float
    intercept: float
    first: float
    last: float


def clipped_logit(accuracies: Resampled, images: int) -> Resampled:
    """Return the logits of accuracies that were measured on n = `images` images.

    Accuracies are first clipped to [1 / 2n, 1 - 1 / 2n]. Every logit is therefore finite.
    """
    edge = 1 / (2 * images)
    logits: Resampled = logit(np.clip(accuracies, edge, 1 - edge))
    return logits


def fit_line(x: Resampled, y: Resampled, weights: Resampled) -> tuple[Resampled, Resampled]:
    """Fit a line to the points of each row by weighted least squares.

    Args:
        x: The x coordinates, [rows, points].
        y: The y coordinates, [rows, points].
        weights: The weights of the points, [rows, points].

    Returns:
        The slopes, [rows], and the intercepts, [rows]. Both are NaN for a row in which x does not vary.
    """
    total = weights.sum(axis=1)
    mean_x, mean_y = (x * weights).sum(axis=1) / total, (y * weights).sum(axis=1) / total
    from_x, from_y = x - mean_x[:, None], y - mean_y[:, None]
    variance = (weights * from_x**2).sum(axis=1)
    # Rounding can make a variance of zero slightly positive, so a tiny variance counts as zero.
    variance[variance <= 1e-20 * total] = np.nan
    slopes = (weights * from_x * from_y).sum(axis=1) / variance
    return slopes, mean_y - slopes * mean_x


def baselines_of(outcomes: Outcomes) -> list[str]:
    """Return the names of the splits that the line is fitted to: full and the random splits.

    A line needs at least two different split sizes. With fewer sizes, the list is empty.
    """
    names = [name for name in outcomes.splits_by_rule("full", "random") if outcomes.splits[name].kept]
    return names if len({outcomes.splits[name].kept for name in names}) > 1 else []


def fitted_lines(outcomes: Outcomes, in_distribution_benchmark: str) -> dict[str, Line]:
    """Fit a line to the measured accuracies for each benchmark with a distribution shift.

    Returns:
        The lines by benchmark. A benchmark is skipped if there are too few random splits for a line, or if the in-distribution
        accuracy does not vary.
    """
    baselines = baselines_of(outcomes)
    if not baselines:
        return {}

    def accuracies_of(benchmark: str) -> Resampled:
        return np.concatenate([outcomes.correct[split, benchmark].mean(axis=1) for split in baselines])[None]

    def logits(benchmark: str) -> Resampled:
        return clipped_logit(accuracies_of(benchmark), len(outcomes.labels[benchmark]))

    plain, x = accuracies_of(in_distribution_benchmark), logits(in_distribution_benchmark)
    lines = {}
    for benchmark in outcomes.benchmarks:
        if benchmark != in_distribution_benchmark:
            slopes, intercepts = fit_line(x, logits(benchmark), np.ones_like(x))
            if np.isfinite(slopes[0]):
                lines[benchmark] = Line(float(slopes[0]), float(intercepts[0]), float(plain.min()), float(plain.max()))
    return lines


class _Accuracies:
    """The accuracies of all models on one benchmark. `by_split` holds an array [1 + resamples, seeds] for each split."""

    def __init__(self, outcomes: Outcomes, resamples: Resamples, benchmark: str) -> None:
        images = resamples.images(benchmark)
        self.images = len(outcomes.labels[benchmark])
        self.by_split = {
            split: model_accuracies(outcomes.correct[split, benchmark], images) for split in outcomes.splits
        }

    def logits(self, split: str) -> Resampled:
        return clipped_logit(self.by_split[split], self.images)

    def joined_logits(self, splits: list[str]) -> Resampled:
        return np.concatenate([self.logits(split) for split in splits], axis=1)


def robustness(
    outcomes: Outcomes, resamples: Resamples, in_distribution_benchmark: str
) -> dict[str, dict[str, Robustness]]:
    """Compute the robustness of splits to the distribution shift of each benchmark.

    A line predicts the accuracy of a model under the shift from the model's in-distribution accuracy. Both accuracies are
    logits. The line is fitted by least squares to the models of full and of the random splits. It therefore shows how
    robustness changes if only the amount of training data changes. Effective robustness is the accuracy under the shift minus
    the predicted accuracy.

    Args:
        outcomes: The outcomes of all models.
        resamples: The resamples of the study.
        in_distribution_benchmark: The benchmark without distribution shift.

    Returns:
        The robustness by benchmark. Each value is a dictionary of robustness by split. The in-distribution benchmark is
        skipped. The splits that the line is fitted to are skipped too.
    """
    baselines, full = baselines_of(outcomes), outcomes.full()
    seeds = {split: resamples.seeds(split) for split in outcomes.splits}
    plain = _Accuracies(outcomes, resamples, in_distribution_benchmark)
    weights = np.concatenate([seeds[split] for split in baselines], axis=1) if baselines else None

    def benchmark_robustness(benchmark: str) -> dict[str, Robustness]:
        shifted = _Accuracies(outcomes, resamples, benchmark)
        if weights is not None:
            slopes, intercepts = fit_line(plain.joined_logits(baselines), shifted.joined_logits(baselines), weights)
            fitted = np.concatenate([plain.by_split[split] for split in baselines], axis=1)[0]

        def split_robustness(split: str) -> Robustness:
            relative, effective, beyond = None, None, False
            mean = over_seeds(shifted.by_split[split], seeds[split])
            if full:
                relative = estimate(mean - over_seeds(shifted.by_split[full], seeds[full]), shifted.images)
            if weights is not None:
                predicted = expit(slopes[:, None] * plain.logits(split) + intercepts[:, None])
                residuals = over_seeds(shifted.by_split[split] - predicted, seeds[split])
                effective = estimate_if_defined(residuals, shifted.images)
                beyond = not fitted.min() <= plain.by_split[split][0].mean() <= fitted.max()
            return Robustness(relative, effective, beyond)

        return {split: split_robustness(split) for split in outcomes.splits if split not in baselines and split != full}

    shifts = [benchmark for benchmark in outcomes.benchmarks if benchmark != in_distribution_benchmark]
    return {
        benchmark: benchmark_robustness(benchmark)
        for benchmark in progress(shifts, len(shifts), "robustness", "benchmark")
    }
