"""Sample the bootstrap resamples that all estimates of a study share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simgap.compare.bootstrap import Resampled, resample_counts, seed_weights
from simgap.compare.outcomes import Outcomes
from simgap.params.compare import CompareParameters
from simgap.store.verdicts import HELD_OUT, USED

# These are the kinds of queries. The position of a kind is a part of the random seed, so another order would change the
# resamples.
ALL = "all"
QUERIES = (ALL, USED, HELD_OUT)


class Resamples:
    """The bootstrap resamples of a study: counts of images and weights of training seeds.

    All splits share the counts of a benchmark. Each split has its own weights.

    The random seed of the counts comes from the name of the benchmark, and the random seed of the weights from the name of the
    split. An interval therefore does not depend on which other splits and benchmarks the study has.
    """

    def __init__(self, parameters: CompareParameters, outcomes: Outcomes) -> None:
        """Store the parameters and the outcomes. Counts and weights are sampled later, when a caller requests them."""
        self._parameters, self._outcomes = parameters, outcomes
        self._benchmark, self._images = "", dict[str, Resampled]()

    def chosen(self, benchmark: str, queries: str) -> NDArray[np.bool_]:
        """Return which images of a benchmark belong to the kind `queries` of `QUERIES`, bool [images]."""
        used = self._outcomes.used_by_rule[benchmark]
        return {ALL: np.ones(len(used), np.bool_), USED: used, HELD_OUT: ~used}[queries]

    def images(self, benchmark: str, queries: str = ALL) -> Resampled:
        """Return the counts of the images of one kind, [1 + resamples, images of that kind].

        Sampling the counts takes most of the time of a comparison, so they are stored. They also take most of the memory, so
        only one benchmark is stored: a request for another benchmark replaces it.

        Args:
            benchmark: The name of the benchmark.
            queries: A kind of `QUERIES`.
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
        """Return the weights of a split's training seeds, [1 + resamples, seeds]."""
        seed = (self._parameters.seed, 1, *split.encode())
        return seed_weights(len(self._outcomes.seeds), self._parameters.resamples, seed)
