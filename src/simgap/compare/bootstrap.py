"""95% intervals by a bootstrap that resamples seeds and images jointly (design: statistics)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float


class Accuracies:
    """The accuracy of one split on one set of images: as measured, and in every resample.

    Two of them are paired by image where they were made with the same image weights.
    """

    def __init__(self, value: float, resampled: NDArray[np.float64]) -> None:
        self.value, self.resampled = value, resampled

    def estimate(self) -> Estimate:
        """Give the accuracy with its interval."""
        return _estimate(self.value, self.resampled)

    def minus(self, other: Accuracies) -> Estimate:
        """Give the difference to another split, paired by image, with its interval."""
        return _estimate(self.value - other.value, self.resampled - other.resampled)


def _estimate(value: float, resampled: NDArray[np.float64]) -> Estimate:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Estimate(float(value), float(low), float(high))


def resample_weights(count: int, resamples: int, seed: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw how often each of `count` units comes in each resample, as shares: float64 [resamples, count], rows sum to 1."""
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn / count


def accuracies(
    correct: NDArray[np.bool_], image_weights: NDArray[np.float64], seed_weights: NDArray[np.float64]
) -> Accuracies:
    """Resample the mean of `correct`, bool [seeds, images].

    Args:
        image_weights: [resamples, images], the same for splits that are to be paired.
        seed_weights: [resamples, seeds], drawn for each split apart: its models share nothing with another split's.
    """
    by_seed = image_weights @ correct.T.astype(np.float64)
    return Accuracies(float(correct.mean()), (by_seed * seed_weights).sum(axis=1))


def gap_explained(full: Accuracies, pruned: Accuracies, reference_alone: Accuracies) -> Estimate | None:
    """Give (full - pruned) / (full - reference alone), claim A; None where the interval of that gap is not above 0.

    Where the reference alone is as good as full, or better, there is no gap of which pruning could explain a share.
    """
    denominator = full.minus(reference_alone)
    if denominator.low <= 0:
        return None
    gaps = full.resampled - reference_alone.resampled
    # The few resamples without a gap have no share of it.
    defined = gaps != 0
    resampled = (full.resampled - pruned.resampled)[defined] / gaps[defined]
    return _estimate((full.value - pruned.value) / denominator.value, resampled)


def verdict(difference: Estimate, margin: float) -> str:
    """Say what an interval shows: `equivalent` within the margin, else `lower`, `higher`, or `inconclusive` (claim B)."""
    if -margin <= difference.low and difference.high <= margin:
        return "equivalent"
    if difference.high < 0:
        return "lower"
    return "higher" if difference.low > 0 else "inconclusive"
