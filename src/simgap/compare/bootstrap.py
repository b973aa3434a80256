"""Compute 95% confidence intervals by a bootstrap that resamples seeds and images jointly.

Each function computes its quantity for the measured data and for all resamples at once. Row 0 of an array holds the measured
value. The other rows hold the values of the resamples. Two splits are paired by image if both splits use the same image counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from simgap.store.estimates import Estimate

# An array of this type has the shape [1 + resamples, ...]. Row 0 holds the measured values, the other rows hold the resamples.
Resampled = NDArray[np.float64]
# Intervals are clipped to these ranges, because no accuracy and no difference of two accuracies can lie outside.
RATE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
# Rounding can make an interval of width zero slightly wider. An interval narrower than this value therefore counts as zero.
ROUNDING = 1e-12


def resample_counts(count: int, resamples: int, seed: tuple[int, ...]) -> Resampled:
    """Sample `count` units with replacement for each resample.

    Returns:
        How often each unit occurs in each resample, float64 [1 + resamples, count]. Row 0 is all ones.
    """
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.concatenate([np.ones((1, count)), drawn])


def seed_weights(count: int, resamples: int, seed: tuple[int, ...]) -> Resampled:
    """Sample a weight for each of S = `count` training seeds in each resample.

    Each resample samples S - 1 of the S seeds with replacement. Each sampled seed counts S / (S - 1). Sampling S seeds would
    underestimate the variance between seeds by the factor (S - 1) / S (Rao & Wu, Resampling Inference With Complex Survey Data,
    JASA 1988). The formula of Rao & Wu also allows other weights. This function uses weights that are never negative, because a
    weighted line fit needs such weights. A single seed always has the weight 1.

    Returns:
        The weights, float64 [1 + resamples, count]. Row 0 is all ones.
    """
    if count == 1:
        return np.ones((1 + resamples, 1))
    drawn = np.random.default_rng(seed).multinomial(count - 1, np.full(count, 1 / count), size=resamples)
    return np.concatenate([np.ones((1, count)), drawn * (count / (count - 1))])


def estimate(values: Resampled, images: float, bounds: tuple[float, float] = DIFFERENCE) -> Estimate:
    """Return the measured value with its 95% interval. The ends of the interval are percentiles of the resamples.

    Resamples in which the quantity is undefined (NaN) are ignored.

    All resamples have the same value if all outcomes are equal, or if no image changed. Percentiles would then give an interval
    of width zero. Such an interval would be too narrow, because images outside the benchmark may differ. The function then
    returns an interval of ± 3 / images instead. This is the rule of three (Hanley & Lippman-Hand, If Nothing Goes Wrong, Is
    Everything All Right?, JAMA 1983).

    Intervals from two or three seeds are approximate. These intervals tend to be too narrow, because so few models show little
    of the variation between seeds.

    Args:
        values: The quantity, [1 + resamples].
        images: The effective number of images. One image changes the value by 1 / images.
        bounds: The smallest and the largest possible value. The interval is clipped to these bounds.
    """
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    if high - low <= ROUNDING:
        low, high = low - 3 / images, high + 3 / images
    return Estimate(float(values[0]), max(float(low), bounds[0]), min(float(high), bounds[1]))


def estimate_if_defined(values: Resampled, images: float, bounds: tuple[float, float] = DIFFERENCE) -> Estimate | None:
    """Return the result of `estimate`, or None if the quantity is undefined.

    The quantity is undefined if the measured value is not finite, or if no resample has a finite value.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    return None if np.isnan(values[0]) or np.isnan(values[1:]).all() else estimate(values, images, bounds)


def model_accuracies(correct: NDArray[np.bool_], images: Resampled) -> Resampled:
    """Compute the accuracy of the model of each seed.

    Args:
        correct: Whether each model classifies each image correctly, bool [seeds, images].
        images: The counts of the images from `resample_counts`.

    Returns:
        The accuracies, [1 + resamples, seeds].
    """
    # The numbers of correct images are sums of whole numbers, so they are exact in float64. Only the division rounds.
    accuracies: Resampled = (images @ correct.T.astype(np.float64)) / images.shape[1]
    return accuracies


def over_seeds(values: Resampled, seeds: Resampled) -> Resampled:
    """Average a quantity over seeds.

    Args:
        values: The quantity for each seed, [1 + resamples, seeds, ...].
        seeds: The weights of the seeds from `seed_weights`. Each split needs its own weights, because the models of two splits
            are independent.

    Returns:
        The weighted averages, [1 + resamples, ...].
    """
    weights = seeds.reshape(*seeds.shape, *[1] * (values.ndim - 2))
    averaged: Resampled = (values * weights).sum(axis=1) / seeds.shape[1]
    return averaged


def accuracy(correct: NDArray[np.bool_], images: Resampled, seeds: Resampled) -> Resampled:
    """Compute the accuracy over images and seeds.

    The arguments are those of `model_accuracies` and `over_seeds`.

    Returns:
        The accuracies, [1 + resamples].
    """
    return over_seeds(model_accuracies(correct, images), seeds)


def _group_sums(values: NDArray[np.float64], groups: NDArray[np.int64], count: int, images: Resampled) -> Resampled:
    """Sum values over the images of each group.

    Args:
        values: The value of each image, float64 [images].
        groups: The group of each image, int64 [images].
        count: The number of groups.
        images: The counts of the images from `resample_counts`.

    Returns:
        The sums, [1 + resamples, count].
    """
    members = csr_array((values, (groups, np.arange(len(groups)))), shape=(count, len(groups)))
    sums: Resampled = (members @ images.T).T
    return sums


def group_accuracies(
    correct: NDArray[np.bool_], groups: NDArray[np.int64], count: int, images: Resampled, seeds: Resampled
) -> Resampled:
    """Compute the accuracy in each group of images, averaged over seeds.

    Args:
        correct: Whether each model classifies each image correctly, bool [seeds, images].
        groups: The group of each image, int64 [images]. Groups are numbered from 0 to `count` - 1.
        count: The number of groups.
        images: The counts of the images from `resample_counts`.
        seeds: The weights of the seeds from `seed_weights`.

    Returns:
        The accuracies, [1 + resamples, count]. A group without images has the accuracy NaN.
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
    """Compute the mean per-class recall, averaged over seeds. Classes without sampled images are ignored.

    Returns:
        The recalls, [1 + resamples].
    """
    present, groups = np.unique(labels, return_inverse=True)
    recalls: Resampled = np.nanmean(group_accuracies(correct, groups, len(present), images, seeds), axis=1)
    return recalls


def slope(correct: NDArray[np.bool_], x: NDArray[np.float64], images: Resampled, seeds: Resampled) -> Resampled:
    """Compute the slope of correctness (0 or 1) on `x` by least squares, and average the slope over seeds.

    The slope is linear in correctness. The slope of the difference between two splits therefore equals the difference between
    the slopes of the two splits.

    Args:
        correct: Whether each model classifies each image correctly, bool [seeds, images].
        x: The value of each image, float64 [images].
        images: The counts of the images from `resample_counts`.
        seeds: The weights of the seeds from `seed_weights`.

    Returns:
        The slopes, [1 + resamples]. A slope is NaN if x is the same for all sampled images.
    """
    centred = x - x.mean()
    mean = images @ centred / len(x)
    variance = images @ centred**2 / len(x) - mean**2
    together = images @ (centred * correct).T / len(x)
    covariance = together - mean[:, None] * model_accuracies(correct, images)
    # Rounding can make a variance of zero slightly positive, so a tiny variance counts as zero.
    variance[variance <= 1e-12 * np.square(centred).max(initial=0.0)] = np.nan
    slopes: Resampled = over_seeds(covariance, seeds) / variance
    return slopes


def images_of_slope(x: NDArray[np.float64]) -> float:
    """Return the effective number n of images for a slope on `x`. One image changes the slope by at most 1 / n."""
    away = np.abs(x - x.mean())
    return float(np.square(away).sum() / max(away.max(), np.finfo(np.float64).tiny))


def gap_explained(full: Resampled, pruned: Resampled, reference_only: Resampled, images: int) -> Estimate | None:
    """Estimate the share of the gap that pruning explains (claim A): (full - pruned) / (full - reference alone).

    The gap is the denominator. The share is undefined if there may be no gap.

    Returns:
        The share, or None if the interval of the gap does not lie completely above 0.
    """
    gap = full - reference_only
    if estimate(gap, images).low <= 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return estimate_if_defined((full - pruned) / gap, images * float(gap[0]), (-np.inf, np.inf))
