"""The engine for processors: blocks of products in fp32, asked everything while they are in cache."""

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

# Products of a tile and so many queries stay in the cache of a core.
BLOCK_QUERIES = 1024
# Groups of rows, for each neighbour wanted, whose largest products bound a query's nearest rows from below.
GROUPS = 4
# Tiles after which the slower precision is tried once more.
RETRY = 64
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def processor_has_bf16() -> bool:
    """Say whether the processor multiplies bf16 itself; emulated, it is slower than fp32."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return not flags.isdisjoint(BF16_INSTRUCTIONS)


def _pairs(room: int) -> Pairs:
    return Pairs(np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float32))


class _Collected:
    """The pairs of a tile that may matter: of each query's nearest rows, of each row's best similarity and margin.

    Memory: what is found, and room for a block each.
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
        """Take in a block of products [rows, queries]; without a `shift` its queries are none of the rule."""
        of_rule = shift is not None
        collect(
            product,
            first_query,
            shift if of_rule else np.zeros_like(bound),
            self.slack,
            bound,
            self.best_bound if of_rule else self._unreached,
            self.margin_bound if of_rule else self._unreached.copy(),
            *self._with_room(product.size),
            self.counts,
        )

    def _with_room(self, more: int) -> tuple[Pairs, Pairs, Pairs]:
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
        """Give the pairs that reached the bound of their query."""
        count = self.counts[0]
        return Candidates(
            self.near.query[:count].astype(np.int64),
            self.near.row[:count].astype(np.int64),
            self.near.value[:count].copy(),
        )

    def open(self) -> tuple[UndecidedPairs, UndecidedPairs]:
        """Give the pairs that may be the best of their row, and those that may have its margin."""
        return (
            self._open(self.best, self.counts[1], self.best_bound),
            self._open(self.margin, self.counts[2], self.margin_bound),
        )

    @staticmethod
    def _open(pairs: Pairs, count: int, bound: NDArray[np.float32]) -> UndecidedPairs:
        row = pairs.row[:count]
        left = np.flatnonzero(pairs.value[:count] >= bound[row])
        # Blocks came by ascending query.
        by_row = left[np.argsort(row[left], kind="stable")]
        return UndecidedPairs(row[by_row].astype(np.int64), pairs.query[by_row].astype(np.int64))


class _Fp32Products:
    """The products of a tile, fp32 [rows, dim], with blocks of queries."""

    def __init__(self, rows: NDArray[np.float32], queries: NDArray[np.float32], error: float) -> None:
        self._rows, self._queries, self.error = rows, queries, error

    def write(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Write the products with queries start to stop, fp32 [rows, stop - start]."""
        np.matmul(self._rows, self._queries[start:stop].T, out=out)


class PrecisionTuner:
    """Chooses among ways to do the same, by what each took when it was last tried.

    The slower one is tried again now and then: which one it is may depend on the data.
    """

    def __init__(self, ways: Sequence[str]) -> None:
        self.seconds = dict.fromkeys(ways, 0.0)
        self._chosen = 0

    def choose(self) -> str:
        """Give the way to go next; one that was never tried comes first."""
        self._chosen += 1
        pick = max if self._chosen % RETRY == 0 else min
        return pick(self.seconds, key=self.seconds.__getitem__)


class CpuEngine(HostEngine):
    """Screens with products in fp32, or in bf16 where the processor has it and it pays; one thread a tile.

    Memory: the queries in fp32, and for each thread a tile, a block of products and the pairs left open.
    """

    tile_rows = 1024

    def __init__(self, asked: SearchRequest, *, precisions: Sequence[str] | None = None) -> None:
        super().__init__(asked)
        self.threads = len(os.sched_getaffinity(0))
        self.error = screening_error(self.queries.shape[1])
        self._precision = PrecisionTuner(precisions or (("fp32", "bf16") if processor_has_bf16() else ("fp32",)))
        if "bf16" in self._precision.seconds:
            # Importing torch takes seconds.
            from simgap.similarity.search.engines.bf16 import Bf16Queries

            self._bf16 = Bf16Queries(self.queries)
        if self.rule_queries:
            self._shift = self.reference_similarity.astype(np.float32)
        cuts = sorted({0, *range(0, len(self.queries), BLOCK_QUERIES), self.rule_queries, len(self.queries)})
        self._blocks = list(pairwise(cuts))

    def answer(
        self, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        """Answer for a tile in the precision that is faster at the time; see `Engine.answer`."""
        begun = time.perf_counter()
        precision = self._precision.choose()
        screen = self.screen if precision == "fp32" else self._screen_in_bf16
        answers = self.answer_by(screen, first_row, rows, bound)
        # Without bounds a tile leaves more open than those that follow.
        if not np.isneginf(bound).any():
            self._precision.seconds[precision] = (time.perf_counter() - begun) / len(rows)
        return answers

    def screen(self, rows: NDArray[np.float32], bound: NDArray[np.float32]) -> Screened:
        """Give what a tile leaves open, by products in fp32."""
        return self._collect(_Fp32Products(rows, self.queries, self.error), len(rows), bound)

    def _screen_in_bf16(self, rows: NDArray[np.float32], bound: NDArray[np.float32]) -> Screened:
        products = self._bf16.products(rows)
        # A pair whose exact similarity reaches the bound has a product that is no further below than the error.
        screened = self._collect(products, len(rows), bound - np.float32(products.error + 2.0**-22))
        return replace(screened, near=self._exact(rows, screened.near, bound))

    def _exact(self, rows: NDArray[np.float32], near: Candidates, bound: NDArray[np.float32]) -> Candidates:
        """Give the pairs whose exact similarity reaches the bound of their query, with that similarity."""
        exact = exact_pairs(rows, self.queries, near.row, near.query).astype(np.float32)
        stays = np.flatnonzero(exact >= bound[near.query])
        return Candidates(near.query[stays], near.row[stays], exact[stays])

    def _collect(self, products: _Fp32Products | Bf16Products, rows: int, bound: NDArray[np.float32]) -> Screened:
        # Two more roundings where margins are compared, of the reference similarity and of the difference.
        collected = _Collected(rows, slack(products.error + 4 * 2.0**-24))
        memory = np.empty(rows * BLOCK_QUERIES, np.float32)
        for start, stop in self._blocks:
            product = memory[: rows * (stop - start)].reshape(rows, stop - start)
            products.write(start, stop, product)
            shift = self._shift[start:stop] if stop <= self.rule_queries else None
            collected.update(product, start, self._lowest(product, bound[start:stop], slack(products.error)), shift)
        if not self.rule_queries:
            return Screened(None, None, collected.candidates())
        return Screened(*collected.open(), collected.candidates())

    def _lowest(
        self, product: NDArray[np.float32], bound: NDArray[np.float32], slack: np.float32
    ) -> NDArray[np.float32]:
        """Give `bound` with another in place of none: without one every row of a block would be a candidate."""
        groups = GROUPS * self.neighbours
        without = np.isneginf(bound)
        if len(product) < groups or not without.any():
            return bound
        # Each of these is the product of another row.
        of_groups = np.stack([product[first::groups].max(axis=0) for first in range(groups)])
        kth = np.partition(of_groups, groups - self.neighbours, axis=0)[groups - self.neighbours]
        return np.where(without, kth - slack, bound)
