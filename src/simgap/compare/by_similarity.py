"""Does accuracy follow similarity? Within a split, and in what changes between a split and its control."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simgap.compare.bootstrap import (
    DIFFERENCE,
    RATE,
    Estimate,
    Figures,
    estimate_where_defined,
    group_accuracies,
    images_of_slope,
    slope,
)
from simgap.compare.resamples import ALL, QUERIES, RULE_QUERIES, Resamples
from simgap.compare.study import Study

FIFTHS, WIDTH = "fifth", "0.05"
BINS_PER_UNIT = 20


@dataclass(frozen=True)
class Bin:
    """Images of a benchmark that are alike in similarity, or in its change.

    Attributes:
        kind: `fifth`, of the images by their value, or `0.05`, the width of the bin.
        low, high: of a fifth the smallest and the largest value in it; of a bin of 0.05 its edges, the lower one in it.
        images: how many.
        figure: accuracy, or its change, with its interval.
    """

    kind: str
    low: float
    high: float
    images: int
    figure: Estimate | None


@dataclass(frozen=True)
class Change:
    """What changes between a split and its control, query by query.

    Attributes:
        slopes: change in accuracy for a change of 1 in s_q, by least squares over queries: by kind of `QUERIES`, `all`, and
            the other two where the split's rule saw a part of the benchmark; None where s_q nowhere changes or everywhere by
            the same.
        bins: change in accuracy by fifths of the change in s_q.
    """

    slopes: dict[str, Estimate | None]
    bins: list[Bin]


def fifths(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give each value's fifth, int64 [values], 0 to 4: equal values share one, so that fifths may differ in size."""
    edges = np.quantile(values, (0.2, 0.4, 0.6, 0.8))
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def steps(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give each value's bin of width 0.05, int64 [values], numbered by those that occur; a bin holds its lower edge."""
    # Exact: a stored similarity has 24 bits.
    _, numbers = np.unique(np.floor(values * BINS_PER_UNIT), return_inverse=True)
    return numbers.astype(np.int64)


def _bins(
    kind: str,
    values: NDArray[np.float64],
    groups: NDArray[np.int64],
    figures: Figures,
    bounds: tuple[float, float],
) -> list[Bin]:
    found = []
    for group in np.unique(groups):
        inside = values[groups == group]
        figure = estimate_where_defined(figures[:, group], len(inside), bounds)
        low, high = float(inside.min()), float(inside.max())
        if kind == WIDTH:
            step = np.floor(low * BINS_PER_UNIT)
            low, high = float(step / BINS_PER_UNIT), float((step + 1) / BINS_PER_UNIT)
        found.append(Bin(kind, low, high, len(inside), figure))
    return found


def accuracy_by_similarity(study: Study, resamples: Resamples, benchmark: str) -> dict[str, list[Bin]]:
    """Give every split's accuracy by s_q of what it is trained on: by fifths, and by bins of 0.05 as in the paper's figure.

    Similar queries may be easier for other reasons than their similarity: `change_by_similarity` is less confounded.
    """
    images = resamples.images(benchmark)

    def bins(split: str, kind: str, groups: NDArray[np.int64]) -> list[Bin]:
        figures = group_accuracies(
            study.correct[split, benchmark], groups, int(groups.max()) + 1, images, resamples.seeds(split)
        )
        return _bins(kind, study.similarity[split, benchmark], groups, figures, RATE)

    return {
        split: bins(split, FIFTHS, fifths(study.similarity[split, benchmark]))
        + bins(split, WIDTH, steps(study.similarity[split, benchmark]))
        for split in study.splits
    }


def _kinds_of(study: Study, resamples: Resamples, split: str, benchmark: str) -> tuple[str, ...]:
    """Name the kinds of queries on which a slope says something of its own."""
    used = resamples.chosen(benchmark, RULE_QUERIES)
    return QUERIES if benchmark in study.splits[split].benchmarks and used.any() and not used.all() else (ALL,)


def _slope(
    pair: list[tuple[NDArray[np.bool_], Figures]],
    change: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    images: Figures,
) -> Estimate | None:
    """Give the slope over the chosen images, bool [images], of a split's outcomes minus its control's."""
    x = change[chosen]
    of_split, of_control = (slope(correct[:, chosen], x, images, seeds) for correct, seeds in pair)
    return estimate_where_defined(of_split - of_control, images_of_slope(x), (-np.inf, np.inf))


def change_by_similarity(study: Study, resamples: Resamples, benchmark: str) -> dict[str, Change]:
    """Set the change in correctness of each query, split minus control, against the change in its s_q.

    What makes a query hard under both splits cancels out. For splits with a trained control.
    """
    images = resamples.images(benchmark)
    result = {}
    for split in study.splits:
        control = study.control_of(split)
        if control is None:
            continue
        change = study.similarity[split, benchmark] - study.similarity[control, benchmark]
        groups = fifths(change)
        count = int(groups.max()) + 1
        pair = [(study.correct[name, benchmark], resamples.seeds(name)) for name in (split, control)]
        figures = [group_accuracies(correct, groups, count, images, seeds) for correct, seeds in pair]
        result[split] = Change(
            {
                queries: _slope(
                    pair, change, resamples.chosen(benchmark, queries), resamples.images(benchmark, queries)
                )
                for queries in _kinds_of(study, resamples, split, benchmark)
            },
            _bins(FIFTHS, change, groups, figures[0] - figures[1], DIFFERENCE),
        )
    return result
