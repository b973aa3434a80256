"""Define the interface of the similarity engines.

A tile is a block of consecutive rows. An engine searches one tile at a time. It returns results for the rows and
results for the queries.

The engine first screens the tile. This means that it computes approximate similarities in the fastest available way,
with a known error bound. Screening leaves the order of some pairs of a row and a query undecided. The engine computes
the exact similarity of these pairs; see `exact.py`. Therefore all engines return the same bits.
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
    """The queries of a search, and the kinds of results to compute.

    Attributes:
        queries: Vectors of the queries with unit norm, fp16 [queries, dim].
        neighbours: Number of nearest rows to find for each query.
        reference_similarity: Similarity of each query to the reference, float64 [queries]; None if there are no rule
            queries.
        used_by_rule: bool [queries]; true for the rule queries. Only these queries affect the results for rows. None
            means that there are no rule queries and no results for rows.
    """

    queries: NDArray[np.float16]
    neighbours: int
    reference_similarity: NDArray[np.float64] | None = None
    used_by_rule: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class RowResults:
    """The results for the rows of a tile. The pruning rules read these results.

    Attributes:
        best: Largest similarity of each row to a rule query, fp32 [rows].
        nearest_query: Number of the rule query with this similarity, int32 [rows]. On ties, the query with the
            smallest number counts.
        margin: Maximum of similarity(row, query) - similarity(query, reference) over the rule queries, fp32 [rows]. The
            difference is computed in float64 and then rounded.
    """

    best: NDArray[np.float32]
    nearest_query: NDArray[np.int32]
    margin: NDArray[np.float32]


@dataclass(frozen=True)
class UndecidedPairs:
    """Pairs that may have the largest value of their row. The pairs are sorted by row, then by query.

    Attributes:
        row: Position of the row in the tile, int64 [pairs].
        query: Number of the rule query, int64 [pairs].
    """

    row: NDArray[np.int64]
    query: NDArray[np.int64]


@dataclass(frozen=True)
class Screened:
    """The pairs of one tile that screening leaves undecided. A pair consists of a row and a query.

    Attributes:
        best: Pairs that may have the best similarity of their row; None if there are no rule queries.
        margin: Pairs that may have the margin of their row; None if there are no rule queries.
        near: Pairs whose row may be among the nearest rows of the query.
    """

    best: UndecidedPairs | None
    margin: UndecidedPairs | None
    near: Candidates


def _first_largest(row: NDArray[np.int64], value: NDArray[np.float64], rows: int) -> NDArray[np.int64]:
    """Return the position of the largest value of each row, int64 [rows]. On ties, return the first position.

    `row` is sorted, and contains each number from 0 to `rows - 1` at least once.
    """
    start = np.searchsorted(row, np.arange(rows))
    largest = np.maximum.reduceat(value, start)
    attained = np.flatnonzero(value == largest[row])
    return attained[np.searchsorted(row[attained], np.arange(rows))]


class Engine(ABC):
    """Search tiles of rows with a fixed set of queries.

    The engine sorts the queries. Rule queries come first, and other queries follow. Within each group, the queries keep
    their order. The results for rows then need only one contiguous range of queries. Arguments and return values use
    the query numbers of the request.

    Attributes:
        tile_rows: Best number of rows in a tile. It affects speed and memory, but no result.
        threads: Best number of tiles to search at the same time.
        error: Largest error of a screened similarity.
        order: Query numbers of the request, sorted in the engine's order, int64 [queries].
        queries: Vectors of the queries in the engine's order, fp32 [queries, dim].
        rule_queries: Number of rule queries.
        reference_similarity: Similarity of each rule query to the reference, float64 [rule_queries]. The attribute does
            not exist if the request has no reference similarity.
    """

    tile_rows: int
    threads: int
    error: float

    def __init__(self, request: SearchRequest) -> None:
        """Check the queries, and move the rule queries to the front.

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
            first_row: Number of the tile's first row in the searched dataset.
            rows: Vectors of the tile, fp16 [rows, dim].
            bound: Bound of each query, fp32 [queries]; see `NearestCandidates.bound`. A pair below the bound of its query is
                not a candidate.

        Returns:
            The results for the rows (None if there are no rule queries), and the candidates for the nearest rows of the queries.

        Raises:
            SimgapError: A row is not finite or does not have unit norm.
        """

    def similarities(
        self, rows: NDArray[np.float16], row: NDArray[np.int64], query: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Compute the exact similarity of the pairs (rows[row[i]], query[i]).

        Args:
            rows: Vectors, fp16 [rows, dim].
            row: Position in `rows` for each pair, int64 [pairs], in ascending order.
            query: Query number of each pair, int64 [pairs].

        Returns:
            Exact similarity of each pair, float64 [pairs].
        """
        needed, position = np.unique(row, return_inverse=True)
        return exact_pairs(to_single(rows[needed]), self.queries, position, self._position[query])


Screen: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.float32]], Screened]


class HostEngine(Engine):
    """Base class of the engines that screen on the CPU. It computes the exact results from the undecided pairs."""

    @abstractmethod
    def screen(self, rows: NDArray[np.float32], bound: NDArray[np.float32]) -> Screened:
        """Screen a tile.

        Args:
            rows: Vectors of the tile, fp32 [rows, dim].
            bound: Bound of each query in the engine's order, fp32 [queries].

        Returns:
            The undecided pairs. The query numbers refer to the engine's order.
        """

    def search(
        self, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        """Search one tile; see `Engine.search`."""
        return self.search_by(self.screen, first_row, rows, bound)

    def search_by(
        self, screen: Screen, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        """Search one tile. The function `screen` screens the tile. See `Engine.search`."""
        single = to_single(rows)
        check_unit_norm(single)
        return self._decide(first_row, single, screen(single, bound[self.order]))

    def _decide(
        self, first_row: int, single: NDArray[np.float32], screened: Screened
    ) -> tuple[RowResults | None, Candidates]:
        """Compute the results of a tile from the undecided pairs.

        Args:
            first_row: Number of the tile's first row in the searched dataset.
            single: Vectors of the tile, fp32 [rows, dim].
            screened: The undecided pairs. The query numbers refer to the engine's order.

        Returns:
            The results for the rows (None if there are no rule queries), and the candidates for the nearest rows of the
            queries.
        """
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
