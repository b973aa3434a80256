"""The resamples that all figures of a study share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simgap.compare.bootstrap import Figures, resample_counts, seed_weights
from simgap.compare.study import Study
from simgap.params.compare import CompareParameters

ALL, RULE_QUERIES, HELD_OUT = "all", "used by the rule", "held out"
QUERIES = (ALL, RULE_QUERIES, HELD_OUT)


class Resamples:
    """Counts of images, the same for every split, and weights of seeds, drawn for each split apart.

    They are named, not numbered: an interval does not depend on which other splits and benchmarks there are.
    """

    def __init__(self, parameters: CompareParameters, study: Study) -> None:
        self._parameters, self._study = parameters, study
        self._benchmark, self._images = "", dict[str, Figures]()

    def chosen(self, benchmark: str, queries: str) -> NDArray[np.bool_]:
        """Say which images of a benchmark are of a kind of `QUERIES`, bool [images]."""
        used = self._study.used_by_rule[benchmark]
        return {ALL: np.ones(len(used), np.bool_), RULE_QUERIES: used, HELD_OUT: ~used}[queries]

    def images(self, benchmark: str, queries: str = ALL) -> Figures:
        """Give the counts of a benchmark's images of a kind of `QUERIES`, [1 + resamples, images of that kind].

        Those of one benchmark are kept until another is asked for: drawing is most of the work, holding them most of the memory.
        """
        if benchmark != self._benchmark:
            self._benchmark, self._images = benchmark, {}
        if queries not in self._images:
            self._images[queries] = self._draw_images(benchmark, queries)
        return self._images[queries]

    def _draw_images(self, benchmark: str, queries: str) -> Figures:
        named = (self._parameters.seed, 0, QUERIES.index(queries), *benchmark.encode())
        count = int(self.chosen(benchmark, queries).sum())
        return resample_counts(count, self._parameters.resamples, named)

    def seeds(self, split: str) -> Figures:
        """Give the weights of a split's seeds, [1 + resamples, seeds]."""
        named = (self._parameters.seed, 1, *split.encode())
        return seed_weights(len(self._study.seeds), self._parameters.resamples, named)
