"""Relate accuracy to similarity, within one split and in the change between a split and its control.

In this module, s_q is the similarity of a query q to its nearest image in the training data of a split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simgap.compare.bootstrap import (
    DIFFERENCE,
    RATE,
    Resampled,
    estimate_if_defined,
    group_accuracies,
    images_of_slope,
    slope,
)
from simgap.compare.outcomes import Outcomes
from simgap.compare.resamples import ALL, QUERIES, Resamples
from simgap.store.estimates import Estimate
from simgap.store.verdicts import USED

FIFTHS, WIDTH = "fifth", "0.05"
BINS_PER_UNIT = 20


@dataclass(frozen=True)
class Bin:
    """A group of benchmark images with about the same value. The value is the similarity s_q, or the change in s_q.

    Attributes:
        kind: `fifth` for a quintile of the images, or `0.05` for a bin of width 0.05.
        low, high: The smallest and the largest value in a quintile, or the edges of a bin. A bin includes its lower edge.
        images: The number of images in the group.
        estimate: The accuracy on these images, or the change in that accuracy. None if no finite value can be computed.
    """

    kind: str
    low: float
    high: float
    images: int
    estimate: Estimate | None


@dataclass(frozen=True)
class Change:
    """The change in accuracy between a split and its control, as a function of the change in s_q.

    Attributes:
        slopes: The change in accuracy for a change of 1 in s_q, by least squares over queries. The keys are kinds of `QUERIES`.
            The key `all` is always present. The other two keys are present only if the split's rule used some queries of the
            benchmark and held out others. A slope is None if the change in s_q is the same for all queries.
        bins: The change in accuracy for each quintile of the change in s_q.
    """

    slopes: dict[str, Estimate | None]
    bins: list[Bin]


def fifths(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Compute the quintile of each value.

    Equal values get the same quintile, so quintiles may differ in size.

    Returns:
        The quintiles, int64 [values], from 0 to 4.
    """
    edges = np.quantile(values, (0.2, 0.4, 0.6, 0.8))
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def steps(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Assign each value to a bin of width 0.05. A bin includes its lower edge.

    Returns:
        The bin number of each value, int64 [values]. Only bins with values are numbered.
    """
    # The product is exact in float64, because a stored similarity has only 24 significant bits.
    _, numbers = np.unique(np.floor(values * BINS_PER_UNIT), return_inverse=True)
    return numbers.astype(np.int64)


def _bins(
    kind: str,
    values: NDArray[np.float64],
    groups: NDArray[np.int64],
    accuracies: Resampled,
    bounds: tuple[float, float],
) -> list[Bin]:
    found = []
    for group in np.unique(groups):
        inside = values[groups == group]
        estimate = estimate_if_defined(accuracies[:, group], len(inside), bounds)
        low, high = float(inside.min()), float(inside.max())
        if kind == WIDTH:
            step = np.floor(low * BINS_PER_UNIT)
            low, high = float(step / BINS_PER_UNIT), float((step + 1) / BINS_PER_UNIT)
        found.append(Bin(kind, low, high, len(inside), estimate))
    return found


def accuracy_by_similarity(outcomes: Outcomes, resamples: Resamples, benchmark: str) -> dict[str, list[Bin]]:
    """Compute the accuracy of every split for groups of queries with about the same s_q.

    There are two kinds of groups: quintiles, and bins of width 0.05 as in the paper. Similar queries may be easier for reasons
    other than their similarity. `change_by_similarity` is less affected by this confounder.

    Returns:
        The bins of each split, by split name. The quintiles come before the bins of width 0.05.
    """
    images = resamples.images(benchmark)

    def bins(split: str, kind: str, groups: NDArray[np.int64]) -> list[Bin]:
        accuracies = group_accuracies(
            outcomes.correct[split, benchmark], groups, int(groups.max()) + 1, images, resamples.seeds(split)
        )
        return _bins(kind, outcomes.similarity[split, benchmark], groups, accuracies, RATE)

    return {
        split: bins(split, FIFTHS, fifths(outcomes.similarity[split, benchmark]))
        + bins(split, WIDTH, steps(outcomes.similarity[split, benchmark]))
        for split in outcomes.splits
    }


def _kinds_of(outcomes: Outcomes, resamples: Resamples, split: str, benchmark: str) -> tuple[str, ...]:
    """Return the kinds of queries that get a slope.

    All three kinds get a slope if the split's rule used some queries of the benchmark and held out others. Otherwise only the
    kind `all` gets a slope.
    """
    used = resamples.chosen(benchmark, USED)
    return QUERIES if outcomes.used(split, benchmark) and used.any() and not used.all() else (ALL,)


def _slope(
    pair: list[tuple[NDArray[np.bool_], Resampled]],
    change: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    images: Resampled,
) -> Estimate | None:
    """Estimate the slope of (split minus control) on the change in s_q, over the chosen images.

    Args:
        pair: Two tuples, for the split and for the control. Each tuple holds the outcomes and the seed weights.
        change: The change in s_q of each image, float64 [images].
        chosen: Which images enter the estimate, bool [images].
        images: The counts of the chosen images from `resample_counts`.

    Returns:
        The slope, or None if the change in s_q is the same for all chosen images.
    """
    x = change[chosen]
    split_slope, control_slope = (slope(correct[:, chosen], x, images, seeds) for correct, seeds in pair)
    return estimate_if_defined(split_slope - control_slope, images_of_slope(x), (-np.inf, np.inf))


def change_by_similarity(outcomes: Outcomes, resamples: Resamples, benchmark: str) -> dict[str, Change]:
    """Relate the change in correctness of each query to the change in its s_q. Both changes are split minus control.

    A query that is hard for the models of both splits adds nothing to the change in correctness.

    Returns:
        The change for each split that has a trained control, by split name. Other splits are skipped.
    """
    images = resamples.images(benchmark)
    result = {}
    for split in outcomes.splits:
        control = outcomes.control_of(split)
        if control is None:
            continue
        change = outcomes.similarity[split, benchmark] - outcomes.similarity[control, benchmark]
        groups = fifths(change)
        count = int(groups.max()) + 1
        pair = [(outcomes.correct[name, benchmark], resamples.seeds(name)) for name in (split, control)]
        accuracies = [group_accuracies(correct, groups, count, images, seeds) for correct, seeds in pair]
        result[split] = Change(
            {
                queries: _slope(
                    pair, change, resamples.chosen(benchmark, queries), resamples.images(benchmark, queries)
                )
                for queries in _kinds_of(outcomes, resamples, split, benchmark)
            },
            _bins(FIFTHS, change, groups, accuracies[0] - accuracies[1], DIFFERENCE),
        )
    return result
