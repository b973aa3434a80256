"""The resamples that all estimates of a study share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simgap.compare.bootstrap import Resampled, resample_counts, seed_weights
from simgap.compare.outcomes import Outcomes
from simgap.params.compare import CompareParameters
from simgap.store.verdicts import HELD_OUT, USED

# Kinds of queries. The position of a kind is part of the seed of its resamples.
ALL = "all"
QUERIES = (ALL, USED, HELD_OUT)


class Resamples:
    """Counts of images, which all splits share, and weights of seeds, which each split has for itself.

    Their seeds come from the names of benchmark and split. So an interval does not depend on which other splits and benchmarks
    the study has.
    """

    def __init__(self, parameters: CompareParameters, outcomes: Outcomes) -> None:
        """Draw nothing yet: counts and weights are drawn when they are requested."""
        self._parameters, self._outcomes = parameters, outcomes
        self._benchmark, self._images = "", dict[str, Resampled]()

    def chosen(self, benchmark: str, queries: str) -> NDArray[np.bool_]:
        """Return which images of a benchmark are of a kind of `QUERIES`, bool [images]."""
        used = self._outcomes.used_by_rule[benchmark]
        return {ALL: np.ones(len(used), np.bool_), USED: used, HELD_OUT: ~used}[queries]

    def images(self, benchmark: str, queries: str = ALL) -> Resampled:
        """Return the counts of a benchmark's images of a kind of `QUERIES`, [1 + resamples, images of that kind].

        The counts of one benchmark are kept until another benchmark is requested. Drawing them takes most of the time, and
        holding them most of the memory.
        """
        if benchmark != self._benchmark:
            self._benchmark, self._images = benchmark, {}
        if queries not in self._images:
            self._images[queries] = self._draw_images(benchmark, queries)
        return self._images[queries]

    def _draw_images(self, benchmark: str, queries: str) -> Resampled:
        seed = (self._parameters.seed, 0, QUERIES.index(queries), *benchmark.encode())
        count = int(self.chosen(benchmark, queries).sum())
        return resample_counts(count, self._parameters.resamples, seed)

    def seeds(self, split: str) -> Resampled:
        """Return the weights of a split's seeds, [1 + resamples, seeds]."""
        seed = (self._parameters.seed, 1, *split.encode())
        return seed_weights(len(self._outcomes.seeds), self._parameters.resamples, seed)
