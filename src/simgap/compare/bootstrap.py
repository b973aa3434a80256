"""95% confidence intervals by a bootstrap that resamples seeds and images jointly.

A quantity is computed for the data as measured and for every resample at once. Row 0 of an array holds the measured value,
and the other rows hold the resamples. Two splits are paired by image if both use the same image counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from simgap.store.estimates import Estimate

# A quantity as measured and in every resample: float64 [1 + resamples, ...].
Resampled = NDArray[np.float64]
# The range of an accuracy, and of a difference of two accuracies.
RATE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
# An interval this narrow has width zero but for rounding.
ROUNDING = 1e-12


def resample_counts(count: int, resamples: int, seed: tuple[int, ...]) -> Resampled:
    """Draw how often each of `count` units occurs in each resample: float64 [1 + resamples, count]. Row 0 is all ones."""
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.concatenate([np.ones((1, count)), drawn])


def seed_weights(count: int, resamples: int, seed: tuple[int, ...]) -> Resampled:
    """Draw the weight of each of `count` seeds in each resample: float64 [1 + resamples, count]. Row 0 is all ones.

    A resample draws S - 1 of S seeds, and each draw counts S / (S - 1). Drawing S would underestimate the variance between
    seeds by (S - 1) / S (Rao & Wu, Resampling Inference With Complex Survey Data, JASA 1988). Of the weights that their formula
    allows, these are never negative, as a weighted line fit needs. A single seed always has the weight 1.
    """
    if count == 1:
        return np.ones((1 + resamples, 1))
    drawn = np.random.default_rng(seed).multinomial(count - 1, np.full(count, 1 / count), size=resamples)
    return np.concatenate([np.ones((1, count)), drawn * (count / (count - 1))])


def estimate(values: Resampled, images: float, bounds: tuple[float, float] = DIFFERENCE) -> Estimate:
    """Return the measured value with its 95% interval, from percentiles of the resamples.

    Resamples in which the quantity is undefined (NaN) are left out. If all resamples give the same value (all outcomes are
    equal, or no image changed), percentiles ignore the images that were not sampled. The interval is then ± 3 / images, the
    rule of three (Hanley & Lippman-Hand, If Nothing Goes Wrong, Is Everything All Right?, JAMA 1983). With two or three seeds
    intervals are approximate and tend to be too narrow: so few models show little of the spread between seeds.

    Args:
        values: the quantity, [1 + resamples].
        images: the effective number of images: one image changes the value by 1 / images.
        bounds: the smallest and the largest possible value. The interval is clipped to them.
    """
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    if high - low <= ROUNDING:
        low, high = low - 3 / images, high + 3 / images
    return Estimate(float(values[0]), max(float(low), bounds[0]), min(float(high), bounds[1]))


def estimate_if_defined(values: Resampled, images: float, bounds: tuple[float, float] = DIFFERENCE) -> Estimate | None:
    """Return an estimate, see `estimate`, or None if the measured value or every resample is not finite."""
    values = np.where(np.isfinite(values), values, np.nan)
    return None if np.isnan(values[0]) or np.isnan(values[1:]).all() else estimate(values, images, bounds)


def model_accuracies(correct: NDArray[np.bool_], images: Resampled) -> Resampled:
    """Compute the accuracy of the model of each seed: [1 + resamples, seeds].

    Args:
        correct: outcomes, bool [seeds, images].
        images: `resample_counts` of the images.
    """
    # Counts are whole numbers, so their sums are exact, and so is the measured value.
    accuracies: Resampled = (images @ correct.T.astype(np.float64)) / images.shape[1]
    return accuracies


def over_seeds(values: Resampled, seeds: Resampled) -> Resampled:
    """Average a quantity over seeds: [1 + resamples, seeds, ...] to [1 + resamples, ...].

    Args:
        values: the quantity for each seed.
        seeds: `seed_weights` of the seeds. Each split has its own, because models of two splits share nothing.
    """
    weights = seeds.reshape(*seeds.shape, *[1] * (values.ndim - 2))
    averaged: Resampled = (values * weights).sum(axis=1) / seeds.shape[1]
    return averaged


def accuracy(correct: NDArray[np.bool_], images: Resampled, seeds: Resampled) -> Resampled:
    """Compute the accuracy over images and seeds, [1 + resamples]; see `model_accuracies` and `over_seeds`."""
    return over_seeds(model_accuracies(correct, images), seeds)


def _group_sums(values: NDArray[np.float64], groups: NDArray[np.int64], count: int, images: Resampled) -> Resampled:
    """Sum `values`, float64 [images], by group: [1 + resamples, count]."""
    members = csr_array((values, (groups, np.arange(len(groups)))), shape=(count, len(groups)))
    sums: Resampled = (members @ images.T).T
    return sums


def group_accuracies(
    correct: NDArray[np.bool_], groups: NDArray[np.int64], count: int, images: Resampled, seeds: Resampled
) -> Resampled:
    """Compute the accuracy in each group of images, over seeds: [1 + resamples, count]. A group without images has NaN.

    Args:
        correct: outcomes, bool [seeds, images].
        groups: the group of each image, int64 [images], each below `count`.
        count: number of groups.
        images: `resample_counts` of the images.
        seeds: `seed_weights` of the seeds.
    """
    every = np.ones(len(groups))
    sizes = _group_sums(every, groups, count, images)
    right = np.stack([_group_sums(outcomes * every, groups, count, images) for outcomes in correct], axis=1)
    with np.errstate(invalid="ignore"):
        accuracies: Resampled = over_seeds(right, seeds) / sizes
    return accuracies


def mean_per_class_recall(
    correct: NDArray[np.bool_], labels: NDArray[np.int64], images: Resampled, seeds: Resampled
) -> Resampled:
    """Compute the mean recall over the classes that occur in a resample, over seeds: [1 + resamples]."""
    present, groups = np.unique(labels, return_inverse=True)
    recalls: Resampled = np.nanmean(group_accuracies(correct, groups, len(present), images, seeds), axis=1)
    return recalls


def slope(correct: NDArray[np.bool_], x: NDArray[np.float64], images: Resampled, seeds: Resampled) -> Resampled:
    """Compute the least-squares slope of correctness (0 or 1) on `x`, float64 [images], over seeds: [1 + resamples].

    The slope is NaN if x does not vary. Slopes are linear in correctness: the slope of a difference of two splits is the
    difference of their slopes.
    """
    centred = x - x.mean()
    mean = images @ centred / len(x)
    variance = images @ centred**2 / len(x) - mean**2
    together = images @ (centred * correct).T / len(x)
    covariance = together - mean[:, None] * model_accuracies(correct, images)
    # A variance of zero may be positive after rounding.
    variance[variance <= 1e-12 * np.square(centred).max(initial=0.0)] = np.nan
    slopes: Resampled = over_seeds(covariance, seeds) / variance
    return slopes


def images_of_slope(x: NDArray[np.float64]) -> float:
    """Return the effective number of images of a slope on `x`: no image changes the slope by more than 1 / this."""
    away = np.abs(x - x.mean())
    return float(np.square(away).sum() / max(away.max(), np.finfo(np.float64).tiny))


def gap_explained(full: Resampled, pruned: Resampled, reference_only: Resampled, images: int) -> Estimate | None:
    """Estimate (full - pruned) / (full - reference alone), the share of claim A.

    Return None if the interval of the gap, full minus the reference alone, is not wholly above 0: pruning cannot explain a
    share of a gap that may not exist.
    """
    gap = full - reference_only
    if estimate(gap, images).low <= 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return estimate_if_defined((full - pruned) / gap, images * float(gap[0]), (-np.inf, np.inf))
