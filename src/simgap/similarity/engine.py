"""One pass over a set: for each of its rows the nearest query and the margin, for each query its nearest rows.

A tile of rows meets the queries block by block. Each block of products is made in fp32 and asked everything at once, while
it is in cache; what fp32 cannot decide, by its error bound, is decided in float64. The answers are those of canonical
similarity, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simgap.similarity.exact import check_unit_norm, exact_pairs, screening_error

# Queries of a block: with tiles of about a thousand rows its products stay in the cache.
BLOCK_QUERIES = 512
# Rows taken at a time to decide among candidates.
TAKEN = 16384


@dataclass(frozen=True)
class RowAnswers:
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
class Candidates:
    """Pairs that may be among a query's nearest rows: query int64, row int64, and fp32 similarity, each [pairs]."""

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    screened: NDArray[np.float32]


def slack(error: float) -> np.float32:
    """Give how far two screened values may lie apart whose exact order is open; taking it off rounds once more."""
    return np.float32(2 * error + 2.0**-22)


def _positions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give what `mask.nonzero()` gives of a matrix, several times as fast."""
    row, column = np.divmod(np.flatnonzero(mask), max(1, mask.shape[1]))
    return row, column


class _Largest:
    """The largest value of each row over blocks of fp32 values, with all pairs that may attain it."""

    def __init__(self, rows: int, error: float) -> None:
        self.slack = slack(error)
        self.largest = np.full(rows, -np.inf, np.float32)
        self.pairs: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []

    def update(self, values: NDArray[np.float32], first_query: int) -> None:
        """Take in a block of values [rows, queries]."""
        of_block = values.max(axis=1)
        np.maximum(self.largest, of_block, out=self.largest)
        bound = self.largest - self.slack
        hit = np.flatnonzero(of_block >= bound)
        found = values[hit]
        row, query = _positions(found >= bound[hit, None])
        self.pairs.append((hit[row], query + first_query, found[row, query]))

    def candidates(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give the pairs (row, query) that may be the largest of their row, ordered by row, then query."""
        row, query, value = (np.concatenate(column) for column in zip(*self.pairs, strict=True))
        near = value >= self.largest[row] - self.slack
        row, query = row[near], query[near]
        order = np.lexsort((query, row))
        return row[order], query[order]


def _first_largest(row: NDArray[np.int64], value: NDArray[np.float64], rows: int) -> NDArray[np.int64]:
    """Give for each row the position of its largest value, the first of equals; `row` ascends and has each of them."""
    start = np.searchsorted(row, np.arange(rows))
    largest = np.maximum.reduceat(value, start)
    attained = np.flatnonzero(value == largest[row])
    return attained[np.searchsorted(row[attained], np.arange(rows))]


class Engine:
    """Answers for a fixed set of queries, in fp32 on the CPU.

    Args:
        queries: fp16 [queries, dim], unit norm.
        reference_similarity: float64 [queries], or None where no answers for rows are wanted.
        used_by_rule: bool [queries], the queries that answers for rows are about.
        neighbours: nearest rows that are wanted of every query.

    Memory: the queries in fp32, and for each thread a tile and a block of products.
    """

    def __init__(
        self,
        queries: NDArray[np.float16],
        neighbours: int,
        reference_similarity: NDArray[np.float64] | None = None,
        used_by_rule: NDArray[np.bool_] | None = None,
    ) -> None:
        check_unit_norm(queries)
        self.neighbours, self.given = neighbours, queries
        self.rule = np.flatnonzero(used_by_rule) if used_by_rule is not None else np.empty(0, np.int64)
        # Queries of the rule come first, each part in its order: answers for rows look at a run of blocks.
        rest = np.setdiff1d(np.arange(len(queries)), self.rule)
        self.order = np.concatenate([self.rule, rest])
        self.queries = queries[self.order].astype(np.float32)
        self.error = screening_error(queries.shape[1])
        self.slack = slack(self.error)
        if reference_similarity is not None:
            self.reference_similarity = reference_similarity[self.rule]
            self._reference_single = self.reference_similarity.astype(np.float32)
        cuts = {0, *range(0, len(queries), BLOCK_QUERIES), len(self.rule), len(queries)}
        self._blocks = list(zip(sorted(cuts)[:-1], sorted(cuts)[1:], strict=True))

    def answer(
        self, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowAnswers | None, Candidates]:
        """Answer for a tile of rows [rows, dim] that starts at `first_row`.

        Args:
            bound: fp32 [queries], `NearestCandidates.bound`: pairs below it are no candidates.

        Raises:
            SimgapError: a row is not finite or not of unit norm.
        """
        check_unit_norm(rows)
        single = rows.astype(np.float32)
        bound = bound[self.order]
        best = _Largest(len(rows), self.error)
        # Two more roundings, of the reference similarity and of the difference.
        margin = _Largest(len(rows), self.error + 4 * 2.0**-24)
        found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        for start, stop in self._blocks:
            product = single @ self.queries[start:stop].T
            found.append(self._near(product, bound[start:stop], start))
            if stop <= len(self.rule):
                best.update(product, start)
                product -= self._reference_single[start:stop]
                margin.update(product, start)
        query, row, screened = (np.concatenate(column) for column in zip(*found, strict=True))
        candidates = Candidates(self.order[query], row + first_row, screened)
        return (self._rows(single, best, margin) if len(self.rule) else None), candidates

    def _near(
        self, product: NDArray[np.float32], bound: NDArray[np.float32], first_query: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        columns = np.flatnonzero(product.max(axis=0) >= bound)
        # Taking most of the columns would cost more than looking at all.
        if len(columns) > product.shape[1] // 4:
            columns = np.arange(product.shape[1])
        near = product if len(columns) == product.shape[1] else product[:, columns]
        lowest = bound[columns]
        if len(near) > self.neighbours:
            open_ended = np.flatnonzero(np.isneginf(lowest))
            # Without a bound every row would be a candidate: the tile's own k-th largest is one.
            kth = np.partition(near[:, open_ended], len(near) - self.neighbours, axis=0)[len(near) - self.neighbours]
            lowest[open_ended] = kth - self.slack
        row, column = _positions(near >= lowest)
        return columns[column] + first_query, row, near[row, column]

    def _rows(self, rows: NDArray[np.float32], best: _Largest, margin: _Largest) -> RowAnswers:
        row, query = best.candidates()
        similarity = exact_pairs(rows, self.queries, row, query)
        chosen = _first_largest(row, similarity, len(rows))
        by_margin_row, by_margin_query = margin.candidates()
        above = exact_pairs(rows, self.queries, by_margin_row, by_margin_query)
        above -= self.reference_similarity[by_margin_query]
        return RowAnswers(
            best=similarity[chosen].astype(np.float32),
            nearest_query=self.rule[query[chosen]].astype(np.int32),
            margin=above[_first_largest(by_margin_row, above, len(rows))].astype(np.float32),
        )


def _by_query_then_similarity(query: NDArray[np.int64], screened: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Give one key a pair that ascends with the query, then descends with the similarity: one sort instead of two."""
    bits = screened.view(np.uint32)
    descending = np.where(bits >> 31, bits, bits ^ np.uint32(0x7FFFFFFF))
    return (query.astype(np.uint64) << np.uint64(32)) | descending


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
    """What may be among the k nearest rows of every query, over tiles in any order.

    Candidates by fp32 similarity, thinned where they are many, decided in float64 at the end.
    """

    def __init__(self, neighbours: int, error: float, known: NDArray[np.float64]) -> None:
        """Begin where `known` [queries] is the similarity of the k-th nearest row so far, -inf where there are fewer rows."""
        self.queries, self.neighbours, self.slack = len(known), neighbours, slack(error)
        self.bound = known.astype(np.float32) - self.slack
        self._kept: list[Candidates] = []
        self._waiting = 0

    def update(self, found: Candidates) -> None:
        """Take in a tile's candidates, and raise `bound` where enough of them wait."""
        self._kept.append(found)
        self._waiting += len(found.row)
        if self._waiting >= self.queries * self.neighbours:
            self._thin()

    def _thin(self) -> None:
        query = np.concatenate([found.query for found in self._kept])
        row = np.concatenate([found.row for found in self._kept])
        screened = np.concatenate([found.screened for found in self._kept])
        order = np.argsort(_by_query_then_similarity(query, screened))
        query, row, screened = query[order], row[order], screened[order]
        start = np.searchsorted(query, np.arange(self.queries))
        enough = np.flatnonzero(np.bincount(query, minlength=self.queries) >= self.neighbours)
        # Two products may each be wrong by the error: a row below this bound has k exact betters.
        self.bound = self.bound.copy()
        self.bound[enough] = screened[start[enough] + self.neighbours - 1] - self.slack
        stays = screened >= self.bound[query]
        self._kept = [Candidates(query[stays], row[stays], screened[stays])]
        self._waiting = 0

    def decide(self, queries: NDArray[np.float16], take: Callable[[NDArray[np.int64]], NDArray[np.float16]]) -> Nearest:
        """Decide among the candidates in float64.

        Args:
            queries: fp16 [queries, dim].
            take: gives the vectors of ascending rows, fp16 [rows, dim].
        """
        nearest = Nearest.none(self.queries, self.neighbours)
        if not self._kept:
            return nearest
        self._thin()
        query, row = self._kept[0].query, self._kept[0].row
        by_row = np.argsort(row, kind="stable")
        exact = np.empty(len(row))
        single = queries.astype(np.float32)
        for start in range(0, len(row), TAKEN):
            chosen = by_row[start : start + TAKEN]
            rows, position = np.unique(row[chosen], return_inverse=True)
            exact[chosen] = exact_pairs(take(rows).astype(np.float32), single, position, query[chosen])
        order = np.lexsort((row, -exact, query))
        query, row, exact = query[order], row[order], exact[order]
        rank = np.arange(len(query)) - np.searchsorted(query, query)
        within = rank < self.neighbours
        nearest.similarity[query[within], rank[within]] = exact[within]
        nearest.row[query[within], rank[within]] = row[within]
        return nearest
