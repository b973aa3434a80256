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

    The random seed of the counts depends on the name of the benchmark. The random seed of the weights depends on the name of
    the split. An interval therefore does not depend on which other splits and benchmarks the study has.
    """

    def __init__(self, parameters: CompareParameters, outcomes: Outcomes) -> None:
        """Store the parameters and the outcomes. Counts and weights are sampled later, when a caller requests them."""
        self._parameters, self._outcomes = parameters, outcomes
        self._benchmark, self._images = "", dict[str, Resampled]()

    def chosen(self, benchmark: str, queries: str) -> NDArray[np.bool_]:
        """Select the images of a benchmark that belong to one kind of query.

        Args:
            benchmark: The name of the benchmark.
            queries: A kind of `QUERIES`.

        Returns:
            Whether each image belongs to the kind, bool [images].
        """
        used = self._outcomes.used_by_rule[benchmark]
        return {ALL: np.ones(len(used), np.bool_), USED: used, HELD_OUT: ~used}[queries]

    def images(self, benchmark: str, queries: str = ALL) -> Resampled:
        """Return the counts of the images of one kind of query.

        Sampling the counts takes most of the time of a comparison, so the counts are stored. The counts also take most of the
        memory, so only the counts of one benchmark are stored. A request for another benchmark replaces them.

        Args:
            benchmark: The name of the benchmark.
            queries: A kind of `QUERIES`.

        Returns:
            The counts, [1 + resamples, images of that kind].
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
        """Return the weights of the training seeds of a split.

        Returns:
            The weights, [1 + resamples, seeds].
        """
        seed = (self._parameters.seed, 1, *split.encode())
        return seed_weights(len(self._outcomes.seeds), self._parameters.resamples, seed)
