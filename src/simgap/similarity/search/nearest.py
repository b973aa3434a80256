"""Find the nearest rows of every query.

The search collects candidate rows from screened tiles, and discards most candidates by their approximate similarity. It
computes the exact similarity of the other candidates only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simgap.similarity.search.exact import slack
from simgap.similarity.search.kernels import insert

Similarities = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
# Exact similarities are usually computed after the last tile. They are computed earlier if there are more than this
# many candidates for each wanted neighbour. Then only k candidates remain for each query, so memory stays small.
CANDIDATES_PER_NEIGHBOUR = 4


@dataclass(frozen=True)
class Candidates:
    """Pairs of a query and a row. The row may be among the nearest rows of the query.

    Attributes:
        query: Query number of each pair, int64 [pairs].
        row: Row number of each pair, int64 [pairs].
        screened: Approximate similarity of each pair from screening, fp32 [pairs].
    """

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    screened: NDArray[np.float32]


@dataclass(frozen=True)
class Nearest:
    """The k nearest rows of each query. On ties, the row with the smaller number comes first.

    If there are fewer than k rows, the rows at the end are missing.

    Attributes:
        similarity: Similarities in descending order, float64 [queries, k]. Missing rows have -inf.
        row: Row numbers in the same order, int64 [queries, k]. Missing rows have -1.
    """

    similarity: NDArray[np.float64]
    row: NDArray[np.int64]

    @classmethod
    def none(cls, queries: int, neighbours: int) -> Nearest:
        """Return the result of a search in an empty dataset. All rows of the result are missing."""
        return cls(np.full((queries, neighbours), -np.inf), np.full((queries, neighbours), -1, np.int64))

    def merged(self, later: Nearest) -> Nearest:
        """Merge this result and `later`, and return the k nearest rows of each query.

        All row numbers in `later` must be larger than the row numbers in this result.
        """
        similarity = np.concatenate([self.similarity, later.similarity], axis=1)
        row = np.concatenate([self.row, later.row], axis=1)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, : self.row.shape[1]]
        return Nearest(np.take_along_axis(similarity, order, 1), np.take_along_axis(row, order, 1))


class NearestCandidates:
    """Collect candidates for the k nearest rows of every query.

    The tiles must come in ascending order. After the last tile, `decide` computes the exact similarities of the
    candidates. Screening cannot separate rows that are almost equal, and a pool may have any number of such rows. If
    there are many candidates, `update` therefore computes exact similarities earlier. Memory: the candidates of one
    tile, and a few candidates for each query.

    Attributes:
        bound: Bound of each query, fp32 [queries]. A row whose approximate similarity is below this bound is not among
            the k nearest rows of the query.
    """

    def __init__(self, error: float, known: Nearest, similarities: Similarities) -> None:
        """Set the first bounds from nearest rows that are already known.

        Args:
            error: Largest error of a screened similarity.
            known: Nearest rows that are already known. They set the first bound, but do not become candidates.
            similarities: Function that returns the exact similarities of pairs. Its arguments are the row of each pair
                and the query of each pair. The rows are in ascending order.
        """
        self.slack = slack(error)
        self._similarities = similarities
        self._largest = known.similarity.astype(np.float32)
        self._largest_row = known.row.copy()
        self._candidates: list[Candidates] = []
        self._added = 0
        self._set_bound()

    def _set_bound(self) -> None:
        # The slack is needed because each of two screened values may be wrong by the error. If a row is below this
        # bound, at least k rows are nearer.
        self.bound = self._largest[:, -1] - self.slack

    def update(self, candidates: Candidates) -> None:
        """Add the candidates of one tile, and raise the bounds."""
        self._candidates.append(candidates)
        self._added += len(candidates.row)
        insert(candidates.query, candidates.row, candidates.screened, self._largest, self._largest_row)
        self._set_bound()
        if self._added >= 2 * self._largest.size:
            self._discard()
            if len(self._candidates[0].row) > CANDIDATES_PER_NEIGHBOUR * self._largest.size:
                nearest = self.decide()
                query, rank = np.nonzero(nearest.row >= 0)
                exact = nearest.similarity[query, rank].astype(np.float32)
                self._candidates = [Candidates(query, nearest.row[query, rank], exact)]

    def _discard(self) -> None:
        """Discard the candidates whose approximate similarity is below the bound of their query."""
        query = np.concatenate([candidates.query for candidates in self._candidates])
        row = np.concatenate([candidates.row for candidates in self._candidates])
        screened = np.concatenate([candidates.screened for candidates in self._candidates])
        left = np.flatnonzero(screened >= self.bound[query])
        self._candidates = [Candidates(query[left], row[left], screened[left])]
        self._added = 0

    def decide(self) -> Nearest:
        """Compute the exact similarities of the candidates, and return the nearest rows.

        Consider the k nearest of all searched rows and known rows. Every searched row among these k rows is in the
        result.
        """
        nearest = Nearest.none(*self._largest.shape)
        if self._candidates:
            self._discard()
            # The candidates are sorted by row for the case of ties. On ties, `insert` puts the earlier candidate first,
            # and this must be the row with the smaller number.
            by_row = np.argsort(self._candidates[0].row, kind="stable")
            query, row = self._candidates[0].query[by_row], self._candidates[0].row[by_row]
            insert(query, row, self._similarities(row, query), nearest.similarity, nearest.row)
        return nearest
