"""Define what every similarity engine does: it searches tiles of rows and returns results for the rows and for the queries.

An engine first screens a tile: it computes approximate similarities in the fastest way it has, with a known error bound. It
then computes the canonical similarity of every pair whose order the screening leaves undecided. Therefore all engines return
the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from simgap.similarity.search.exact import check_unit_norm, exact_pairs
from simgap.similarity.search.kernels import to_single
from simgap.similarity.search.nearest import Candidates


@dataclass(frozen=True)
class SearchRequest:
    """The queries of a search and the results that are wanted.

    Attributes:
        queries: fp16 [queries, dim], unit norm.
        neighbours: Number of nearest rows to find for each query.
        reference_similarity: float64 [queries]; None if no results for rows are wanted.
        used_by_rule: bool [queries], the queries that the results for rows refer to; None if no query is one.
    """

    queries: NDArray[np.float16]
    neighbours: int
    reference_similarity: NDArray[np.float64] | None = None
    used_by_rule: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class RowResults:
    """The results for the rows of a tile, which the pruning rules read.

    Attributes:
        best: fp32 [rows], the largest similarity to a query of the rule.
        nearest_query: int32 [rows], the query of `best`; the lower one on ties.
        margin: fp32 [rows], the maximum of similarity minus reference similarity over the queries of the rule. The difference
            is computed in float64 and then rounded.
    """

    best: NDArray[np.float32]
    nearest_query: NDArray[np.int32]
    margin: NDArray[np.float32]


@dataclass(frozen=True)
class UndecidedPairs:
    """Pairs that may have the largest value of their row, sorted by row, then by query.

    Attributes:
        row: Row of the tile, int64 [pairs].
        query: Query of the rule, int64 [pairs].
    """

    row: NDArray[np.int64]
    query: NDArray[np.int64]


@dataclass(frozen=True)
class Screened:
    """The pairs of a tile that screening leaves undecided.

    Attributes:
        best: Pairs that may have the best similarity of their row; None if the rule has no queries.
        margin: Pairs that may have the margin of their row; None if the rule has no queries.
        near: Pairs that may be among the nearest rows of their query.
    """

    best: UndecidedPairs | None
    margin: UndecidedPairs | None
    near: Candidates


def _first_largest(row: NDArray[np.int64], value: NDArray[np.float64], rows: int) -> NDArray[np.int64]:
    """Return for each row the position of its largest value, the first of equal ones.

    `row` is sorted and has each of the `rows` rows at least once.
    """
    start = np.searchsorted(row, np.arange(rows))
    largest = np.maximum.reduceat(value, start)
    attained = np.flatnonzero(value == largest[row])
    return attained[np.searchsorted(row[attained], np.arange(rows))]


class Engine(ABC):
    """Search tiles of rows with a fixed set of queries.

    Inside the engine, the queries of the rule come first and each of the two groups keeps its order. The results for rows
    then concern one contiguous range of queries. Arguments and return values use the query numbers of the
    request.

    Attributes:
        tile_rows: Best number of rows in a tile; it changes speed and memory, not results.
        threads: Best number of tiles to search at the same time.
        error: Largest error of a screened similarity.
        order: The request's number of each query, in the engine's order, int64 [queries].
        queries: fp32 [queries, dim], in the engine's order.
        rule_queries: Number of queries of the rule.
        reference_similarity: float64 [rule_queries], if the request has it.
    """

    tile_rows: int
    threads: int
    error: float

    def __init__(self, request: SearchRequest) -> None:
        """Check and sort the queries.

        Raises:
            SimgapError: A query is not finite or does not have unit norm.
        """
        single = to_single(request.queries)
        check_unit_norm(single)
        self.neighbours = request.neighbours
        used = np.zeros(len(single), np.bool_) if request.used_by_rule is None else request.used_by_rule
        self.rule_queries = int(used.sum())
        self.order = np.concatenate([np.flatnonzero(used), np.flatnonzero(~used)])
        self._position = np.argsort(self.order)
        self.queries = single if used.all() else single[self.order]
        if request.reference_similarity is not None:
            self.reference_similarity = request.reference_similarity[self.order[: self.rule_queries]]

    @abstractmethod
    def search(
        self, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        """Search one tile.

        Args:
            first_row: Number of the tile's first row in the set.
            rows: Vectors of the tile, fp16 [rows, dim].
            bound: fp32 [queries], see `NearestCandidates.bound`. Pairs below the bound of their query are no candidates.

        Returns:
            The results for the rows (None if the rule has no queries), and the candidates for the queries' nearest rows.

        Raises:
            SimgapError: A row is not finite or does not have unit norm.
        """

    def similarities(
        self, rows: NDArray[np.float16], row: NDArray[np.int64], query: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Compute the canonical similarity of the pairs (rows[row[i]], query[i]).

        Args:
            rows: Vectors, fp16 [rows, dim].
            row: Row of each pair, in ascending order.
            query: Query of each pair.

        Returns:
            float64 [pairs].
        """
        needed, position = np.unique(row, return_inverse=True)
        return exact_pairs(to_single(rows[needed]), self.queries, position, self._position[query])


Screen: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.float32]], Screened]


class HostEngine(Engine):
    """An engine that screens on the CPU. This class decides the undecided pairs."""

    @abstractmethod
    def screen(self, rows: NDArray[np.float32], bound: NDArray[np.float32]) -> Screened:
        """Screen a tile.

        Args:
            rows: Vectors of the tile, fp32 [rows, dim].
            bound: fp32 [queries], in the engine's order.

        Returns:
            The undecided pairs, with queries numbered in the engine's order.
        """

    def search(
        self, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        """Search one tile; see `Engine.search`."""
        return self.search_by(self.screen, first_row, rows, bound)

    def search_by(
        self, screen: Screen, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        """Search one tile and screen it with the function `screen`; see `Engine.search`."""
        single = to_single(rows)
        check_unit_norm(single)
        return self._decide(first_row, single, screen(single, bound[self.order]))

    def _decide(
        self, first_row: int, single: NDArray[np.float32], screened: Screened
    ) -> tuple[RowResults | None, Candidates]:
        """Decide the results for the rows of a tile, fp32 [rows, dim]."""
        near = Candidates(self.order[screened.near.query], screened.near.row + first_row, screened.near.screened)
        if screened.best is None or screened.margin is None:
            return None, near
        similarity = exact_pairs(single, self.queries, screened.best.row, screened.best.query)
        chosen = _first_largest(screened.best.row, similarity, len(single))
        difference = exact_pairs(single, self.queries, screened.margin.row, screened.margin.query)
        difference -= self.reference_similarity[screened.margin.query]
        results = RowResults(
            best=similarity[chosen].astype(np.float32),
            nearest_query=self.order[screened.best.query[chosen]].astype(np.int32),
            margin=difference[_first_largest(screened.margin.row, difference, len(single))].astype(np.float32),
        )
        return results, near
