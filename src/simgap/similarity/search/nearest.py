"""Find the nearest rows of every query: collect candidates from screened tiles, discard most, and decide the rest exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simgap.similarity.search.exact import slack
from simgap.similarity.search.kernels import insert

Similarities = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
# With more candidates than this for each wanted neighbour, the candidates are decided before the last tile.
CANDIDATES_PER_NEIGHBOUR = 4


@dataclass(frozen=True)
class Candidates:
    """Pairs that may be among a query's nearest rows.

    Attributes:
        query: int64 [pairs].
        row: int64 [pairs].
        screened: Screened similarity, fp32 [pairs].
    """

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    screened: NDArray[np.float32]


@dataclass(frozen=True)
class Nearest:
    """The k nearest rows of each query. Ties go to the lower row.

    Attributes:
        similarity: float64 [queries, k], in descending order; -inf if there are fewer than k rows.
        row: int64 [queries, k]; -1 if there are fewer than k rows.
    """

    similarity: NDArray[np.float64]
    row: NDArray[np.int64]

    @classmethod
    def none(cls, queries: int, neighbours: int) -> Nearest:
        """Return the result of a search among no rows."""
        return cls(np.full((queries, neighbours), -np.inf), np.full((queries, neighbours), -1, np.int64))

    def merged(self, later: Nearest) -> Nearest:
        """Return the nearest rows of both results. Every row number of `later` must be higher than those of this result."""
        similarity = np.concatenate([self.similarity, later.similarity], axis=1)
        row = np.concatenate([self.row, later.row], axis=1)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, : self.row.shape[1]]
        return Nearest(np.take_along_axis(similarity, order, 1), np.take_along_axis(row, order, 1))


class NearestCandidates:
    """Candidates for the k nearest rows of every query, collected from tiles in ascending order.

    `decide` computes the undecided candidates exactly at the end. `update` does the same early if there are many: screening
    cannot separate rows that are almost equal, and a pool may have any number of them. Memory: the candidates of one tile,
    and a few for each query.

    Attributes:
        bound: fp32 [queries]. A row whose screened similarity is below the bound is not among the k nearest.
    """

    def __init__(self, error: float, known: Nearest, similarities: Similarities) -> None:
        """Start from the nearest rows found so far.

        Args:
            error: Largest error of a screened similarity.
            known: The nearest rows found so far; they only set the bound.
            similarities: Returns the canonical similarity of pairs (row, query) that are sorted by row.
        """
        self.slack = slack(error)
        self._similarities = similarities
        self._largest = known.similarity.astype(np.float32)
        self._largest_row = known.row.copy()
        self._candidates: list[Candidates] = []
        self._added = 0
        self._set_bound()

    def _set_bound(self) -> None:
        # Each of two screened values may be off by the error. For a row below this bound, k rows are certainly nearer.
        self.bound = self._largest[:, -1] - self.slack

    def update(self, candidates: Candidates) -> None:
        """Add the candidates of one tile and raise the bound."""
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
        """Discard the candidates below the bound of their query."""
        query = np.concatenate([candidates.query for candidates in self._candidates])
        row = np.concatenate([candidates.row for candidates in self._candidates])
        screened = np.concatenate([candidates.screened for candidates in self._candidates])
        left = np.flatnonzero(screened >= self.bound[query])
        self._candidates = [Candidates(query[left], row[left], screened[left])]
        self._added = 0

    def decide(self) -> Nearest:
        """Compute the candidates exactly and return the nearest.

        The result has every candidate that may be among the nearest of all rows so far.
        """
        nearest = Nearest.none(*self._largest.shape)
        if self._candidates:
            self._discard()
            # Candidates are inserted by ascending row, so that ties go to the lower row.
            by_row = np.argsort(self._candidates[0].row, kind="stable")
            query, row = self._candidates[0].query[by_row], self._candidates[0].row[by_row]
            insert(query, row, self._similarities(row, query), nearest.similarity, nearest.row)
        return nearest
