"""Search on the CPU.

The engine computes the dot products of rows and queries in blocks. It uses a block for all results while the block is still
in the CPU cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simgap.similarity.search.engines.engine import HostEngine, RowResults, Screened, SearchRequest, UndecidedPairs
from simgap.similarity.search.exact import exact_pairs, screening_error, slack
from simgap.similarity.search.kernels import Pairs, collect
from simgap.similarity.search.nearest import Candidates

if TYPE_CHECKING:
    from simgap.similarity.search.engines.bf16 import Bf16Products

# A block has this many queries. The products of a tile and a block fit in the cache of a core, so later steps do not
# read them from memory.
BLOCK_QUERIES = 1024
# Queries have no bound before the first tile, so the engine computes the first bound from this tile. The engine splits
# the rows of the tile into this many groups for each wanted neighbour. The largest products of the groups give the
# bound.
GROUPS = 4
# The engine tries the slower precision again once in this many tiles. The data decide which precision is faster, so the
# slower precision may become the faster one.
RETRY = 64
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def processor_has_bf16() -> bool:
    """Return whether the CPU has bf16 instructions. Without these instructions, bf16 is slower than fp32."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return not flags.isdisjoint(BF16_INSTRUCTIONS)


def _pairs(capacity: int) -> Pairs:
    return Pairs(np.empty(capacity, np.int32), np.empty(capacity, np.int32), np.empty(capacity, np.float32))


class _CollectedPairs:
    """Collect the pairs of one tile that screening leaves undecided.

    A pair consists of a row and a query. The undecided pairs are in three lists. `near` has the pairs whose row may be
    among the nearest rows of the query. `best` has the pairs that may have the best similarity of the row. `margin` has
    the pairs that may have the margin of the row. Memory: the collected pairs, and space for one block of pairs in each
    list.
    """

    def __init__(self, rows: int, slack: np.float32) -> None:
        self.slack = slack
        self.near, self.best, self.margin = _pairs(0), _pairs(0), _pairs(0)
        self.counts = np.zeros(3, np.int64)
        self.best_bound = np.full(rows, -np.inf, np.float32)
        self.margin_bound = self.best_bound.copy()
        self._unreached = np.full(rows, np.inf, np.float32)

    def update(
        self,
        product: NDArray[np.float32],
        first_query: int,
        bound: NDArray[np.float32],
        shift: NDArray[np.float32] | None,
    ) -> None:
        """Add the undecided pairs of a block of products.

        Args:
            product: Products of the tile's rows and the block's queries, fp32 [rows, queries].
            first_query: Number of the block's first query.
            bound: Bound of each query, fp32 [queries]; see `NearestCandidates.bound`.
            shift: Reference similarity of each query, fp32 [queries]; None if the block has no rule queries.
        """
        has_shift = shift is not None
        collect(
            product,
            first_query,
            shift if has_shift else np.zeros_like(bound),
            self.slack,
            bound,
            self.best_bound if has_shift else self._unreached,
            self.margin_bound if has_shift else self._unreached.copy(),
            *self._with_space(product.size),
            self.counts,
        )

    def _with_space(self, more: int) -> tuple[Pairs, Pairs, Pairs]:
        grown = []
        for pairs, count in zip((self.near, self.best, self.margin), self.counts, strict=True):
            larger = pairs
            if count + more > len(pairs.row):
                larger = _pairs(2 * int(count + more))
                for old, new in zip(pairs, larger, strict=True):
                    new[:count] = old[:count]
            grown.append(larger)
        self.near, self.best, self.margin = grown
        return self.near, self.best, self.margin

    def candidates(self) -> Candidates:
        """Return the pairs whose product reached the bound of their query."""
        count = self.counts[0]
        return Candidates(
            self.near.query[:count].astype(np.int64),
            self.near.row[:count].astype(np.int64),
            self.near.value[:count].copy(),
        )

    def undecided(self) -> tuple[UndecidedPairs, UndecidedPairs]:
        """Return the undecided pairs that the results of the rows depend on.

        Returns:
            The pairs that may have the best similarity of their row, and the pairs that may have the margin of their
            row.
        """
        return (
            self._undecided(self.best, self.counts[1], self.best_bound),
            self._undecided(self.margin, self.counts[2], self.margin_bound),
        )

    @staticmethod
    def _undecided(pairs: Pairs, count: int, bound: NDArray[np.float32]) -> UndecidedPairs:
        row = pairs.row[:count]
        left = np.flatnonzero(pairs.value[:count] >= bound[row])
        # The blocks were added in ascending order of queries. A stable sort by row keeps this order within each row.
        by_row = left[np.argsort(row[left], kind="stable")]
        return UndecidedPairs(row[by_row].astype(np.int64), pairs.query[by_row].astype(np.int64))


class _Fp32Products:
    """Multiply the rows of one tile by blocks of queries, in fp32."""

    def __init__(self, rows: NDArray[np.float32], queries: NDArray[np.float32], error: float) -> None:
        self._rows, self._queries, self.error = rows, queries, error

    def write(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Compute the products of all rows of the tile and a range of queries.

        Args:
            start: Number of the first query.
            stop: Number after the last query.
            out: Array for the products, fp32 [rows, stop - start].
        """
        np.matmul(self._rows, self._queries[start:stop].T, out=out)


class PrecisionTuner:
    """Choose the precision of each tile.

    The tuner usually chooses the precision with the shortest measured time. Once in `RETRY` tiles, it chooses the
    slower precision and measures it again, because the data decide which precision is faster.

    Attributes:
        seconds: Seconds per row for each precision, from the last tile that was measured in this precision. The value
            is 0 before the first measurement.
    """

    def __init__(self, precisions: Sequence[str]) -> None:
        """Start without measurements. `precisions` has the names of the precisions to choose from."""
        self.seconds = dict.fromkeys(precisions, 0.0)
        self._choices = 0

    def choose(self) -> str:
        """Return the precision of the next tile. A precision without a measurement comes first."""
        self._choices += 1
        pick = max if self._choices % RETRY == 0 else min
        return pick(self.seconds, key=self.seconds.__getitem__)


class CpuEngine(HostEngine):
    """Screen with products in fp32 or bf16, and search one tile in each thread.

    The engine uses bf16 if the CPU supports bf16 and bf16 is faster. Memory: the queries in fp32, and also in bf16 if the CPU
    supports it. Each thread also needs a tile, a block of products and the undecided pairs.
    """

    tile_rows = 1024

    def __init__(self, request: SearchRequest, *, precisions: Sequence[str] | None = None) -> None:
        """Prepare the queries.

        Args:
            request: The queries, and the kinds of results to compute.
            precisions: `fp32`, `bf16` or both. None means both on a CPU with bf16 instructions, and `fp32` on any other CPU.
        """
        super().__init__(request)
        self.threads = len(os.sched_getaffinity(0))
        self.error = screening_error(self.queries.shape[1])
        self._precision = PrecisionTuner(precisions or (("fp32", "bf16") if processor_has_bf16() else ("fp32",)))
        if "bf16" in self._precision.seconds:
            # Importing torch takes seconds, so an engine without bf16 does not import it.
            from simgap.similarity.search.engines.bf16 import Bf16Queries

            self._bf16 = Bf16Queries(self.queries)
        if self.rule_queries:
            self._shift = self.reference_similarity.astype(np.float32)
        cuts = sorted({0, *range(0, len(self.queries), BLOCK_QUERIES), self.rule_queries, len(self.queries)})
        self._blocks = list(pairwise(cuts))

    def search(
        self, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        """Search one tile in the precision that the tuner chooses; see `Engine.search`."""
        started = time.perf_counter()
        precision = self._precision.choose()
        screen = self.screen if precision == "fp32" else self._screen_in_bf16
        results = self.search_by(screen, first_row, rows, bound)
        # Only a tile in which every query has a bound is measured. A tile without bounds leaves more pairs undecided,
        # so its time is not representative.
        if not np.isneginf(bound).any():
            self._precision.seconds[precision] = (time.perf_counter() - started) / len(rows)
        return results

    def screen(self, rows: NDArray[np.float32], bound: NDArray[np.float32]) -> Screened:
        """Screen a tile with products in fp32; see `HostEngine.screen`."""
        return self._collect(_Fp32Products(rows, self.queries, self.error), len(rows), bound)

    def _screen_in_bf16(self, rows: NDArray[np.float32], bound: NDArray[np.float32]) -> Screened:
        products = self._bf16.products(rows)
        # A bf16 product may be smaller than the exact similarity by at most the error. The bounds are therefore lowered
        # by the error. Otherwise, a pair could be lost although its exact similarity reaches the bound.
        screened = self._collect(products, len(rows), bound - np.float32(products.error + 2.0**-22))
        return replace(screened, near=self._exact(rows, screened.near, bound))

    def _exact(self, rows: NDArray[np.float32], near: Candidates, bound: NDArray[np.float32]) -> Candidates:
        """Select the pairs whose exact similarity reaches the bound of their query.

        Returns:
            The selected pairs. Their `screened` values are the exact similarities, rounded to fp32.
        """
        exact = exact_pairs(rows, self.queries, near.row, near.query).astype(np.float32)
        left = np.flatnonzero(exact >= bound[near.query])
        return Candidates(near.query[left], near.row[left], exact[left])

    def _collect(self, products: _Fp32Products | Bf16Products, rows: int, bound: NDArray[np.float32]) -> Screened:
        # The slack must also cover the error of a margin. A margin has two more roundings than a product, because the
        # reference similarity and the difference are rounded.
        collected = _CollectedPairs(rows, slack(products.error + 4 * 2.0**-24))
        memory = np.empty(rows * BLOCK_QUERIES, np.float32)
        for start, stop in self._blocks:
            product = memory[: rows * (stop - start)].reshape(rows, stop - start)
            products.write(start, stop, product)
            shift = self._shift[start:stop] if stop <= self.rule_queries else None
            collected.update(product, start, self._lowest(product, bound[start:stop], slack(products.error)), shift)
        if not self.rule_queries:
            return Screened(None, None, collected.candidates())
        return Screened(*collected.undecided(), collected.candidates())

    def _lowest(
        self, product: NDArray[np.float32], bound: NDArray[np.float32], slack: np.float32
    ) -> NDArray[np.float32]:
        """Replace each missing bound (-inf) by a bound from the products of this block.

        Without a bound, every row of the tile would be a candidate.

        Args:
            product: Products of the tile's rows and the block's queries, fp32 [rows, queries].
            bound: Bound of each query of the block, fp32 [queries].
            slack: Largest difference of two products whose order is undecided.

        Returns:
            The bound of each query, fp32 [queries]. If the tile has too few rows, the missing bounds stay -inf.
        """
        groups = GROUPS * self.neighbours
        missing = np.isneginf(bound)
        if len(product) < groups or not missing.any():
            return bound
        # The largest products of the groups belong to different rows. Therefore, at least k rows have a product that
        # reaches the k-th largest of these products.
        group_largest = np.stack([product[first::groups].max(axis=0) for first in range(groups)])
        kth = np.partition(group_largest, groups - self.neighbours, axis=0)[groups - self.neighbours]
        return np.where(missing, kth - slack, bound)
