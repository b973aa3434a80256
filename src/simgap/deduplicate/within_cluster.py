"""The rule within clusters: blocks of products in fp32, and float64 for the pairs that fp32 cannot decide."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from simgap.core.executor import LOCAL, Executor, run_parts
from simgap.deduplicate.arrays import save
from simgap.similarity.search.exact import check_unit_norm, exact_pairs, screening_error
from simgap.similarity.search.kernels import to_single
from simgap.store.embeddings import Embeddings

# Rows of a product: with blocks of a few thousand rows it stays in the cache.
TILE_ROWS = 512
# Blocks whose result is kept at a time.
SECTION_BLOCKS = 128
# True where the other row of a tile's own square is no lower one.
NOT_LOWER = np.triu(np.ones((TILE_ROWS, TILE_ROWS), np.bool_))


class Limit:
    """The similarity above which two rows are too similar, 1 - eps, and what an fp32 product says of it.

    Products above `above` are of pairs above the limit, and those below `below` are not.
    """

    def __init__(self, eps: float, dim: int) -> None:
        self.exact = 1 - eps
        error = screening_error(dim)
        self.above = np.nextafter(np.float32(self.exact + error), np.float32(np.inf))
        self.below = np.nextafter(np.float32(self.exact - error), np.float32(-np.inf))

    def exceeded(
        self, product: NDArray[np.float32], rows: NDArray[np.float32], others: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Tell which of `rows` [n, dim] have a canonical similarity above the limit to one of `others` [m, dim]: bool [n].

        Args:
            product: fp32 [n, m], their products; -inf for pairs that do not count.
        """
        largest = product.max(axis=1)
        exceeded: NDArray[np.bool_] = largest > self.above
        open_rows = np.flatnonzero(~exceeded & (largest >= self.below))
        if len(open_rows):
            row, other = np.nonzero(product[open_rows] >= self.below)
            row = open_rows[row]
            exceeded[row[exact_pairs(rows, others, row, other) > self.exact]] = True
        return exceeded


@dataclass(frozen=True)
class Order:
    """Pool rows by cluster: `rows` int64 [pool rows], ascending within one; cluster c is at `bounds[c]` to `bounds[c + 1]`."""

    rows: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, cluster: NDArray[np.int32], clusters: int) -> Order:
        """Order by the cluster of each row, int32 [pool rows]."""
        bounds = np.concatenate([[0], np.cumsum(np.bincount(cluster, minlength=clusters))])
        return cls(np.argsort(cluster, kind="stable"), bounds)


def take(pool: Embeddings, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read the vectors of `rows` in any order: fp32 [len(rows), dim].

    Raises:
        SimgapError: a row is not finite or not of unit norm.
    """
    ascending = np.argsort(rows)
    stored = to_single(pool.take(rows[ascending]))
    check_unit_norm(stored)
    vectors = np.empty_like(stored)
    vectors[ascending] = stored
    return vectors


def mark_within(vectors: NDArray[np.float32], limit: Limit, duplicate: NDArray[np.bool_]) -> None:
    """Mark the rows [n, dim] that are too similar to one before them in `duplicate`, bool [n]."""
    for start in range(0, len(vectors), TILE_ROWS):
        tile = vectors[start : start + TILE_ROWS]
        lower = vectors[: start + len(tile)]
        product = tile @ lower.T
        np.copyto(product[:, start:], -np.inf, where=NOT_LOWER[: len(tile), : len(tile)])
        duplicate[start : start + len(tile)] |= limit.exceeded(product, tile, lower)


def mark_against(
    vectors: NDArray[np.float32], lower: NDArray[np.float32], limit: Limit, duplicate: NDArray[np.bool_]
) -> None:
    """Mark the rows [n, dim] that are too similar to one of `lower` [m, dim]; those that are marked are not compared."""
    waiting = np.flatnonzero(~duplicate)
    for start in range(0, len(waiting), TILE_ROWS):
        rows = waiting[start : start + TILE_ROWS]
        tile = vectors[rows]
        duplicate[rows] = limit.exceeded(tile @ lower.T, tile, lower)


def duplicates_in_block(pool: Embeddings, order: Order, limit: Limit, block_rows: int, start: int) -> NDArray[np.bool_]:
    """Mark the rows at `start` to `start + block_rows` of the order, as `near_duplicates` does: bool [rows].

    A block holds a piece of a cluster or many clusters. Memory: two blocks in fp32 and a tile's product.
    """
    rows = order.rows[start : start + block_rows]
    vectors = take(pool, rows)
    duplicate = np.zeros(len(rows), np.bool_)
    first, last = np.searchsorted(order.bounds, [start, start + len(rows) - 1], side="right") - 1
    bounds = order.bounds[first : last + 2].clip(start, start + len(rows)) - start
    for cluster in np.flatnonzero(np.diff(bounds) > 1):
        own = slice(bounds[cluster], bounds[cluster + 1])
        mark_within(vectors[own], limit, duplicate[own])
    # Only the first cluster may have begun before this block.
    own = slice(0, bounds[1])
    for lower in range(order.bounds[first], start, block_rows):
        if duplicate[own].all():
            break
        mark_against(
            vectors[own], take(pool, order.rows[lower : min(lower + block_rows, start)]), limit, duplicate[own]
        )
    return duplicate


@dataclass
class _Sections:
    """The rows by cluster, `section` of them a part."""

    pool: Embeddings
    order: Order
    limit: Limit
    block_rows: int
    section: int
    scratch: Path

    @property
    def sizes(self) -> Sequence[int]:
        rows = len(self.order.rows)
        return [min(self.section, rows - start) for start in range(0, rows, self.section)]

    def path(self, number: int) -> Path:
        return self.scratch / f"duplicate_{number * self.section:012d}.npy"

    def write(self, number: int, out: Path, advance: Callable[[int], object]) -> None:
        start = number * self.section
        of_block = partial(duplicates_in_block, self.pool, self.order, self.limit, self.block_rows)
        found = []
        threads = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(threads) as executor, threadpool_limits(1, "blas"):
            for of_rows in executor.map(of_block, range(start, start + self.sizes[number], self.block_rows)):
                found.append(of_rows)
                advance(len(of_rows))
        save(out, np.concatenate(found))


def near_duplicates(
    pool: Embeddings,
    cluster: NDArray[np.int32],
    clusters: int,
    eps: float,
    block_rows: int,
    scratch: Path,
    executor: Executor = LOCAL,
) -> NDArray[np.bool_]:
    """Mark the rows that are too similar to a lower row of their cluster, dropped or not: bool [pool rows].

    Too similar is a canonical similarity strictly above 1 - eps. The answer is exact: neither `block_rows` nor the number of
    threads changes it. Memory: for each thread two blocks in fp32, and about 17 bytes a pool row.

    Args:
        cluster: int32 [pool rows], in [0, clusters).
        scratch: folder where finished sections wait for a stage that was killed.
        executor: who works on the sections; changes no answer.

    Raises:
        SimgapError: a row is not finite or not of unit norm.
    """
    order = Order.of(cluster, clusters)
    parts = _Sections(pool, order, Limit(eps, pool.dim), block_rows, SECTION_BLOCKS * block_rows, scratch)
    run_parts(executor, parts, "deduplicate: near-duplicates", "row")
    duplicate = np.zeros(pool.rows, np.bool_)
    for number in range(len(parts.sizes)):
        start = number * parts.section
        duplicate[order.rows[start : start + parts.section]] = np.load(parts.path(number))
    return duplicate
