"""Relative and effective robustness (Taori et al., Measuring Robustness to Natural Distribution Shifts, NeurIPS 2020)."""

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
        relative: accuracy minus that of full; None if full was not trained.
        effective: accuracy minus the accuracy that the line predicts; None if there is no line.
        beyond_the_line: whether the split's in-distribution accuracy lies outside the range that the line was fitted on.
    """

    relative: Estimate | None
    effective: Estimate | None
    beyond_the_line: bool


@dataclass(frozen=True)
class Line:
    """A line that predicts the accuracy under a shift from the in-distribution accuracy, both as logits.

    Attributes:
        slope, intercept: of the line.
        first, last: the smallest and the largest in-distribution accuracy that the line was fitted on.
    """

    slope: float
    intercept: float
    first: float
    last: float


def clipped_logit(accuracies: Resampled, images: int) -> Resampled:
    """Return the logits of accuracies on n images, clipped to [1 / 2n, 1 - 1 / 2n]."""
    edge = 1 / (2 * images)
    logits: Resampled = logit(np.clip(accuracies, edge, 1 - edge))
    return logits


def fit_line(x: Resampled, y: Resampled, weights: Resampled) -> tuple[Resampled, Resampled]:
    """Fit a line by weighted least squares to each row of [rows, points].

    Returns:
        Slopes and intercepts, [rows]. They are NaN if x does not vary.
    """
    total = weights.sum(axis=1)
    mean_x, mean_y = (x * weights).sum(axis=1) / total, (y * weights).sum(axis=1) / total
    from_x, from_y = x - mean_x[:, None], y - mean_y[:, None]
    variance = (weights * from_x**2).sum(axis=1)
    # A variance of zero may be positive after rounding.
    variance[variance <= 1e-20 * total] = np.nan
    slopes = (weights * from_x * from_y).sum(axis=1) / variance
    return slopes, mean_y - slopes * mean_x


def baselines_of(outcomes: Outcomes) -> list[str]:
    """Return the splits that the line is fitted on, full and the random ones; none if they have fewer than two sizes."""
    names = [name for name in outcomes.splits_by_rule("full", "random") if outcomes.splits[name].kept]
    return names if len({outcomes.splits[name].kept for name in names}) > 1 else []


def fitted_lines(outcomes: Outcomes, in_distribution_benchmark: str) -> dict[str, Line]:
    """Fit the line of each benchmark with a distribution shift to the accuracies as measured.

    A benchmark has no line if there are too few random splits, or if the in-distribution accuracy does not vary.
    """
    baselines = baselines_of(outcomes)
    if not baselines:
        return {}

    def of_models(benchmark: str) -> Resampled:
        return np.concatenate([outcomes.correct[split, benchmark].mean(axis=1) for split in baselines])[None]

    def logits(benchmark: str) -> Resampled:
        return clipped_logit(of_models(benchmark), len(outcomes.labels[benchmark]))

    plain, x = of_models(in_distribution_benchmark), logits(in_distribution_benchmark)
    lines = {}
    for benchmark in outcomes.benchmarks:
        if benchmark != in_distribution_benchmark:
            slopes, intercepts = fit_line(x, logits(benchmark), np.ones_like(x))
            if np.isfinite(slopes[0]):
                lines[benchmark] = Line(float(slopes[0]), float(intercepts[0]), float(plain.min()), float(plain.max()))
    return lines


class _Accuracies:
    """The accuracy of every model on one benchmark, [1 + resamples, seeds], by split."""

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
    """Compute the robustness of every split that the line is not fitted on, by benchmark with a shift and by split.

    The line predicts a model's accuracy under the shift from its in-distribution accuracy, both as logits. It is fitted by
    least squares to the models of full and of the random splits, so it shows the effect of less training data alone. Effective
    robustness is the residual, as a difference of accuracies.

    Args:
        outcomes: the outcomes of all models.
        resamples: the resamples of the study.
        in_distribution_benchmark: the benchmark without distribution shift.
    """
    baselines, full = baselines_of(outcomes), outcomes.full()
    seeds = {split: resamples.seeds(split) for split in outcomes.splits}
    plain = _Accuracies(outcomes, resamples, in_distribution_benchmark)
    weights = np.concatenate([seeds[split] for split in baselines], axis=1) if baselines else None

    def of_benchmark(benchmark: str) -> dict[str, Robustness]:
        shifted = _Accuracies(outcomes, resamples, benchmark)
        if weights is not None:
            slopes, intercepts = fit_line(plain.joined_logits(baselines), shifted.joined_logits(baselines), weights)
            fitted = np.concatenate([plain.by_split[split] for split in baselines], axis=1)[0]

        def of_split(split: str) -> Robustness:
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

        return {split: of_split(split) for split in outcomes.splits if split not in baselines and split != full}

    shifts = [benchmark for benchmark in outcomes.benchmarks if benchmark != in_distribution_benchmark]
    return {
        benchmark: of_benchmark(benchmark) for benchmark in progress(shifts, len(shifts), "robustness", "benchmark")
    }
