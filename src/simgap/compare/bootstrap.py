"""95% intervals by a bootstrap that resamples seeds and images jointly (design: statistics).

A figure is computed as measured and in every resample at once: row 0 stands for what was measured, the others for the
resamples. Figures of two splits are paired by image where they were made with the same image counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Figures = NDArray[np.float64]
# The range of an accuracy, and of a difference of two.
RATE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
# Wider than what rounding leaves of an interval of width zero.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float


def resample_counts(count: int, resamples: int, seed: tuple[int, ...]) -> Figures:
    """Draw how often each of `count` units comes in each resample: float64 [1 + resamples, count], row 0 is all ones."""
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.concatenate([np.ones((1, count)), drawn])


def seed_weights(count: int, resamples: int, seed: tuple[int, ...]) -> Figures:
    """Draw how much each of `count` seeds counts in each resample: float64 [1 + resamples, count], row 0 is all ones.

    Of S seeds S - 1 are drawn, and each draw counts S / (S - 1): drawing S would understate the variance between seeds by
    (S - 1) / S (Rao & Wu, Resampling Inference With Complex Survey Data, JASA 1988). The weights are those of their formula
    that no resample makes negative, as a line fitted with them needs. One seed keeps its weight of 1.
    """
    if count == 1:
        return np.ones((1 + resamples, 1))
    drawn = np.random.default_rng(seed).multinomial(count - 1, np.full(count, 1 / count), size=resamples)
    return np.concatenate([np.ones((1, count)), drawn * (count / (count - 1))])


def estimate(figures: Figures, images: float, bounds: tuple[float, float] = DIFFERENCE) -> Estimate:
    """Give a figure, [1 + resamples], with its 95% interval; resamples in which it is not defined (NaN) are left out.

    Percentiles of the resamples. Where no resample changes the figure, since all outcomes are alike or no image changed, they
    say nothing of the images that were not drawn from the world: the interval reaches by 3 / images to both sides, the rule of
    three (Hanley & Lippman-Hand, If Nothing Goes Wrong, Is Everything All Right?, JAMA 1983). With two or three seeds intervals
    are approximate, and rather too narrow: a percentile cannot know how little so few models say of their spread.

    Args:
        images: how many count: one of them moves the figure by 1 / images.
        bounds: the smallest and the largest value that the figure can have; no interval goes beyond.
    """
    low, high = np.nanquantile(figures[1:], (0.025, 0.975))
    if high - low <= ROUNDING:
        low, high = low - 3 / images, high + 3 / images
    return Estimate(float(figures[0]), max(float(low), bounds[0]), min(float(high), bounds[1]))


def estimate_where_defined(
    figures: Figures, images: float, bounds: tuple[float, float] = DIFFERENCE
) -> Estimate | None:
    """Give a figure with its interval, see `estimate`; None where it is not finite as measured, or in no resample."""
    figures = np.where(np.isfinite(figures), figures, np.nan)
    return None if np.isnan(figures[0]) or np.isnan(figures[1:]).all() else estimate(figures, images, bounds)


def model_accuracies(correct: NDArray[np.bool_], images: Figures) -> Figures:
    """Give the accuracy of each seed's model: [1 + resamples, seeds].

    Args:
        correct: outcomes, bool [seeds, images].
        images: `resample_counts` of the images.
    """
    # Counts are whole numbers: sums of them are exact, and so is what was measured.
    accuracies: Figures = (images @ correct.T.astype(np.float64)) / images.shape[1]
    return accuracies


def over_seeds(figures: Figures, seeds: Figures) -> Figures:
    """Average a figure over seeds: [1 + resamples, seeds, ...] to [1 + resamples, ...].

    Args:
        seeds: `seed_weights` of the seeds, drawn for each split apart: its models share nothing with another split's.
    """
    weights = seeds.reshape(*seeds.shape, *[1] * (figures.ndim - 2))
    averaged: Figures = (figures * weights).sum(axis=1) / seeds.shape[1]
    return averaged


def accuracy(correct: NDArray[np.bool_], images: Figures, seeds: Figures) -> Figures:
    """Give the accuracy over images and seeds, [1 + resamples]; see `model_accuracies` and `over_seeds`."""
    return over_seeds(model_accuracies(correct, images), seeds)


def _group_sums(values: NDArray[np.float64], groups: NDArray[np.int64], count: int, images: Figures) -> Figures:
    """Sum `values`, float64 [images], by group: [1 + resamples, count]."""
    members = csr_array((values, (groups, np.arange(len(groups)))), shape=(count, len(groups)))
    sums: Figures = (members @ images.T).T
    return sums


def group_accuracies(
    correct: NDArray[np.bool_], groups: NDArray[np.int64], count: int, images: Figures, seeds: Figures
) -> Figures:
    """Give the accuracy in each group of images, over seeds: [1 + resamples, count], NaN where a group has no image.

    Args:
        groups: the group of each image, int64 [images], each below `count`.
    """
    every = np.ones(len(groups))
    sizes = _group_sums(every, groups, count, images)
    right = np.stack([_group_sums(outcomes * every, groups, count, images) for outcomes in correct], axis=1)
    with np.errstate(invalid="ignore"):
        accuracies: Figures = over_seeds(right, seeds) / sizes
    return accuracies


def mean_per_class_recall(
    correct: NDArray[np.bool_], labels: NDArray[np.int64], images: Figures, seeds: Figures
) -> Figures:
    """Give the mean recall of the classes that occur in a resample, over seeds: [1 + resamples]."""
    present, groups = np.unique(labels, return_inverse=True)
    recalls: Figures = np.nanmean(group_accuracies(correct, groups, len(present), images, seeds), axis=1)
    return recalls


def slope(correct: NDArray[np.bool_], x: NDArray[np.float64], images: Figures, seeds: Figures) -> Figures:
    """Give the least-squares slope of correctness (0 or 1) on `x`, float64 [images], over seeds: [1 + resamples].

    NaN where x does not vary. Slopes are linear in correctness: the slope of a difference of two splits is the difference
    of their slopes.
    """
    centred = x - x.mean()
    mean = images @ centred / len(x)
    variance = images @ centred**2 / len(x) - mean**2
    together = images @ (centred * correct).T / len(x)
    covariance = together - mean[:, None] * model_accuracies(correct, images)
    # What rounding leaves of a variance of zero is not one.
    variance[variance <= 1e-12 * np.square(centred).max(initial=0.0)] = np.nan
    slopes: Figures = over_seeds(covariance, seeds) / variance
    return slopes


def images_of_slope(x: NDArray[np.float64]) -> float:
    """Give the number of images that counts for a slope on `x`: no image moves the slope by more than 1 / this."""
    away = np.abs(x - x.mean())
    return float(np.square(away).sum() / max(away.max(), np.finfo(np.float64).tiny))


def gap_explained(full: Figures, pruned: Figures, reference_alone: Figures, images: int) -> Estimate | None:
    """Give (full - pruned) / (full - reference alone), claim A; None where the interval of that gap is not above 0.

    Where the reference alone is as good as full, or better, there is no gap of which pruning could explain a share.
    """
    gap = full - reference_alone
    if estimate(gap, images).low <= 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return estimate_where_defined((full - pruned) / gap, images * float(gap[0]), (-np.inf, np.inf))


def verdict(difference: Estimate, margin: float) -> str:
    """Say what an interval shows: `equivalent` within the margin, else `lower`, `higher`, or `inconclusive` (claim B)."""
    if -margin <= difference.low and difference.high <= margin:
        return "equivalent"
    if difference.high < 0:
        return "lower"
    return "higher" if difference.low > 0 else "inconclusive"
