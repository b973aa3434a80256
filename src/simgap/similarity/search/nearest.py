"""The nearest rows of every query: candidates of screened tiles, thinned, then decided exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simgap.similarity.search.exact import slack
from simgap.similarity.search.kernels import insert

Similarities = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
# Candidates for each neighbour wanted from which on they are decided early.
DECIDED = 4


@dataclass(frozen=True)
class Candidates:
    """Pairs that may be among a query's nearest rows: query int64, row int64, and screened similarity fp32, each [pairs]."""

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    screened: NDArray[np.float32]


@dataclass(frozen=True)
class Nearest:
    """The k nearest rows of each query: similarity float64 [queries, k], descending, and row int64 [queries, k].

    Where there are fewer than k rows, -inf and -1. Ties go to the lower row.
    """

    similarity: NDArray[np.float64]
    row: NDArray[np.int64]

    @classmethod
    def none(cls, queries: int, neighbours: int) -> Nearest:
        """Give the neighbours among no rows."""
        return cls(np.full((queries, neighbours), -np.inf), np.full((queries, neighbours), -1, np.int64))

    def merged(self, later: Nearest) -> Nearest:
        """Give the nearest of both; the rows of `later` are all higher."""
        similarity = np.concatenate([self.similarity, later.similarity], axis=1)
        row = np.concatenate([self.row, later.row], axis=1)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, : self.row.shape[1]]
        return Nearest(np.take_along_axis(similarity, order, 1), np.take_along_axis(row, order, 1))


class NearestCandidates:
    """What may be among the k nearest rows of every query, over tiles in ascending order: screened first, then decided.

    What is left open is decided at the end, and whenever it is many times what is wanted: rows that are alike cannot be told
    apart by screening, however many they are. Memory: a tile's candidates, and some for each query.

    Args:
        error: how far screened similarities may be off.
        known: the nearest rows so far.
        similarities: gives the canonical similarity of pairs (row, query), ordered by row.
    """

    def __init__(self, error: float, known: Nearest, similarities: Similarities) -> None:
        self.slack = slack(error)
        self._similarities = similarities
        self._largest = known.similarity.astype(np.float32)
        self._largest_row = known.row.copy()
        self._kept: list[Candidates] = []
        self._waiting = 0
        self._set_bound()

    def _set_bound(self) -> None:
        # Two screened values may each be wrong by the error: a row below this bound has k exact betters.
        self.bound = self._largest[:, -1] - self.slack

    def update(self, found: Candidates) -> None:
        """Take in a tile's candidates, and raise `bound`, fp32 [queries]."""
        self._kept.append(found)
        self._waiting += len(found.row)
        insert(found.query, found.row, found.screened, self._largest, self._largest_row)
        self._set_bound()
        if self._waiting >= 2 * self._largest.size:
            self._thin()
            if len(self._kept[0].row) > DECIDED * self._largest.size:
                nearest = self.decide()
                query, rank = np.nonzero(nearest.row >= 0)
                settled = nearest.similarity[query, rank].astype(np.float32)
                self._kept = [Candidates(query, nearest.row[query, rank], settled)]

    def _thin(self) -> None:
        query = np.concatenate([found.query for found in self._kept])
        row = np.concatenate([found.row for found in self._kept])
        screened = np.concatenate([found.screened for found in self._kept])
        stays = np.flatnonzero(screened >= self.bound[query])
        self._kept = [Candidates(query[stays], row[stays], screened[stays])]
        self._waiting = 0

    def decide(self) -> Nearest:
        """Give the nearest among the candidates: those of them that may be among the nearest of all rows so far."""
        nearest = Nearest.none(*self._largest.shape)
        if self._kept:
            self._thin()
            # Ties go to the lower row.
            by_row = np.argsort(self._kept[0].row, kind="stable")
            query, row = self._kept[0].query[by_row], self._kept[0].row[by_row]
            insert(query, row, self._similarities(row, query), nearest.similarity, nearest.row)
        return nearest
