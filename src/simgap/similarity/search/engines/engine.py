"""What every similarity engine does: tiles of rows in, for each row and each query the answers out.

An engine screens a tile in whatever way is fast; what the error of its screening leaves open is decided by canonical
similarity. So all engines give the same bits.
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
    """What an engine is to answer of every row.

    Attributes:
        queries: fp16 [queries, dim], unit norm.
        neighbours: nearest rows that are wanted of every query.
        reference_similarity: float64 [queries], or None where no answers for rows are wanted.
        used_by_rule: bool [queries], the queries that answers for rows are about; None: none of them.
    """

    queries: NDArray[np.float16]
    neighbours: int
    reference_similarity: NDArray[np.float64] | None = None
    used_by_rule: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class RowResults:
    """For the rows of a tile: what the pruning rules read.

    Attributes:
        best: fp32 [rows], the largest similarity to a query of the rule.
        nearest_query: int32 [rows], that query; the lower one on ties.
        margin: fp32 [rows], the largest of similarity minus that query's reference similarity; a difference taken in
            float64, then rounded.
    """

    best: NDArray[np.float32]
    nearest_query: NDArray[np.int32]
    margin: NDArray[np.float32]


@dataclass(frozen=True)
class UndecidedPairs:
    """The pairs (row of the tile, query of the rule) that may be the largest of their row, ordered by row, then query."""

    row: NDArray[np.int64]
    query: NDArray[np.int64]


@dataclass(frozen=True)
class Screened:
    """What a tile leaves open: of best similarity and margin (None where no rule has queries), and of nearest rows."""

    best: UndecidedPairs | None
    margin: UndecidedPairs | None
    near: Candidates


def _first_largest(row: NDArray[np.int64], value: NDArray[np.float64], rows: int) -> NDArray[np.int64]:
    """Give for each row the position of its largest value, the first of equals; `row` ascends and has each of them."""
    start = np.searchsorted(row, np.arange(rows))
    largest = np.maximum.reduceat(value, start)
    attained = np.flatnonzero(value == largest[row])
    return attained[np.searchsorted(row[attained], np.arange(rows))]


class Engine(ABC):
    """Answers for a fixed set of queries.

    Queries of the rule come first, each part in its own order, so that answers for rows are about a run of queries;
    what is asked and given back counts queries as given.

    Attributes:
        tile_rows: rows that are best asked about at a time; changes speed and memory, not answers.
        threads: tiles that are best asked about at the same time.
        error: how far a screened similarity may be off.

    Raises:
        SimgapError: a query is not finite or not of unit norm.
    """

    tile_rows: int
    threads: int
    error: float

    def __init__(self, asked: SearchRequest) -> None:
        single = to_single(asked.queries)
        check_unit_norm(single)
        self.neighbours = asked.neighbours
        used = np.zeros(len(single), np.bool_) if asked.used_by_rule is None else asked.used_by_rule
        self.rule_queries = int(used.sum())
        self.order = np.concatenate([np.flatnonzero(used), np.flatnonzero(~used)])
        self._position = np.argsort(self.order)
        self.queries = single if used.all() else single[self.order]
        if asked.reference_similarity is not None:
            self.reference_similarity = asked.reference_similarity[self.order[: self.rule_queries]]

    @abstractmethod
    def answer(
        self, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        """Answer for a tile of rows [rows, dim] that starts at `first_row`.

        Args:
            bound: fp32 [queries], `NearestCandidates.bound`: pairs below it are no candidates.

        Raises:
            SimgapError: a row is not finite or not of unit norm.
        """

    def similarities(
        self, rows: NDArray[np.float16], row: NDArray[np.int64], query: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Give the canonical similarity of the pairs (rows[row[i]], query[i]): float64 [pairs]; `row` ascends."""
        needed, position = np.unique(row, return_inverse=True)
        return exact_pairs(to_single(rows[needed]), self.queries, position, self._position[query])


Screen: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.float32]], Screened]


class HostEngine(Engine):
    """An engine that screens on the processor, and leaves the decisions to this class."""

    @abstractmethod
    def screen(self, rows: NDArray[np.float32], bound: NDArray[np.float32]) -> Screened:
        """Give what a tile [rows, dim] leaves open, queries and `bound` [queries] counted in the engine's order."""

    def answer(
        self, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        """Answer for a tile; see `Engine.answer`."""
        return self.answer_by(self.screen, first_row, rows, bound)

    def answer_by(
        self, screen: Screen, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        """Answer for a tile by this way to screen it; see `Engine.answer`."""
        single = to_single(rows)
        check_unit_norm(single)
        return self._decided(first_row, single, screen(single, bound[self.order]))

    def _decided(
        self, first_row: int, single: NDArray[np.float32], found: Screened
    ) -> tuple[RowResults | None, Candidates]:
        """Decide what a tile, fp32 [rows, dim] from `first_row` on, leaves open of its rows."""
        near = Candidates(self.order[found.near.query], found.near.row + first_row, found.near.screened)
        if found.best is None or found.margin is None:
            return None, near
        similarity = exact_pairs(single, self.queries, found.best.row, found.best.query)
        chosen = _first_largest(found.best.row, similarity, len(single))
        above = exact_pairs(single, self.queries, found.margin.row, found.margin.query)
        above -= self.reference_similarity[found.margin.query]
        answers = RowResults(
            best=similarity[chosen].astype(np.float32),
            nearest_query=self.order[found.best.query[chosen]].astype(np.int32),
            margin=above[_first_largest(found.margin.row, above, len(single))].astype(np.float32),
        )
        return answers, near
