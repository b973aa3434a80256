"""Does accuracy follow similarity? Within a split, and in the change between a split and its control."""

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
    """Images of a benchmark with about the same similarity, or the same change of similarity.

    Attributes:
        kind: `fifth` (a fifth of the images, by their value) or `0.05` (a bin of that width).
        low, high: the smallest and the largest value in a fifth, or the edges of a bin of 0.05, which holds its lower edge.
        images: number of images.
        estimate: their accuracy, or the change of their accuracy.
    """

    kind: str
    low: float
    high: float
    images: int
    estimate: Estimate | None


@dataclass(frozen=True)
class Change:
    """The change between a split and its control, query by query.

    Attributes:
        slopes: change in accuracy for a change of 1 in s_q, by least squares over queries. The keys are kinds of `QUERIES`:
            `all`, and the other two if the split's rule used a part of the benchmark. A slope is None if the change in s_q is
            the same for all queries.
        bins: change in accuracy by fifths of the change in s_q.
    """

    slopes: dict[str, Estimate | None]
    bins: list[Bin]


def fifths(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the fifth of each value, int64 [values], 0 to 4. Equal values share a fifth, so fifths may differ in size."""
    edges = np.quantile(values, (0.2, 0.4, 0.6, 0.8))
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def steps(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of width 0.05 of each value, int64 [values]. Only bins with values are numbered.

    A bin holds its lower edge.
    """
    # The product is exact: a stored similarity has 24 bits.
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
    """Compute the accuracy of every split by s_q of its training data: by fifths, and by bins of 0.05 as in the paper.

    Similar queries may be easier for other reasons than their similarity. `change_by_similarity` is less confounded.
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
    """Return the kinds of queries that get a slope: all three only if the rule used some queries and held out others."""
    used = resamples.chosen(benchmark, USED)
    return QUERIES if outcomes.used(split, benchmark) and used.any() and not used.all() else (ALL,)


def _slope(
    pair: list[tuple[NDArray[np.bool_], Resampled]],
    change: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    images: Resampled,
) -> Estimate | None:
    """Estimate the slope over the chosen images, bool [images], of a split's outcomes minus its control's."""
    x = change[chosen]
    split_slope, control_slope = (slope(correct[:, chosen], x, images, seeds) for correct, seeds in pair)
    return estimate_if_defined(split_slope - control_slope, images_of_slope(x), (-np.inf, np.inf))


def change_by_similarity(outcomes: Outcomes, resamples: Resamples, benchmark: str) -> dict[str, Change]:
    """Relate the change in correctness of each query, split minus control, to the change in its s_q.

    Queries that are hard under both splits cancel out. The result holds the splits with a trained control.
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
