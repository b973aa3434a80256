"""Find the near-duplicates within clusters.

The rows are compared in blocks by fp32 products. If fp32 cannot decide about a pair, the exact float64 similarity
decides.
"""

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
from simgap.similarity.search.exact import check_unit_norm, exact_pairs, screening_error
from simgap.similarity.search.kernels import to_single
from simgap.store.arrays import read_array, write_array
from simgap.store.embeddings import Embeddings

# A tile has this many rows. The products of a tile and a block of a few thousand rows stay in the cache, so later steps
# do not read them from memory.
TILE_ROWS = 512
# A section has this many blocks. The result of each finished section is stored. A restarted stage therefore repeats
# only unfinished sections.
SECTION_BLOCKS = 128
# The comparison ignores the pairs for which this mask is true. Each row of a tile is compared only with the rows that
# come before it.
NOT_LOWER = np.triu(np.ones((TILE_ROWS, TILE_ROWS), np.bool_))


class Limit:
    """The limit 1 - eps of the similarity. Two rows with a similarity above the limit are near-duplicates.

    Attributes:
        exact: The limit for exact similarities.
        above: If an fp32 product is above this value, the exact similarity is above the limit.
        below: If an fp32 product is below this value, the exact similarity is not above the limit.
    """

    def __init__(self, eps: float, dim: int) -> None:
        """Compute the limits for vectors with `dim` dimensions."""
        self.exact = 1 - eps
        error = screening_error(dim)
        self.above = np.nextafter(np.float32(self.exact + error), np.float32(np.inf))
        self.below = np.nextafter(np.float32(self.exact - error), np.float32(-np.inf))

    def exceeded(
        self, product: NDArray[np.float32], rows: NDArray[np.float32], others: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Find the rows whose exact similarity to at least one other row is above the limit.

        Args:
            product: Products of the rows and the other rows, fp32 [n, m]. Pairs to ignore have -inf.
            rows: Vectors of the rows, fp32 [n, dim].
            others: Vectors of the other rows, fp32 [m, dim].

        Returns:
            bool [n]; true for the rows that have at least one such similarity.
        """
        largest = product.max(axis=1)
        exceeded: NDArray[np.bool_] = largest > self.above
        undecided = np.flatnonzero(~exceeded & (largest >= self.below))
        if len(undecided):
            row, other = np.nonzero(product[undecided] >= self.below)
            row = undecided[row]
            exceeded[row[exact_pairs(rows, others, row, other) > self.exact]] = True
        return exceeded


@dataclass(frozen=True)
class Order:
    """The pool rows sorted by cluster.

    Attributes:
        rows: Numbers of the pool rows, int64 [pool rows], in ascending order within each cluster.
        bounds: Start of each cluster in `rows`, and the end of the last cluster, int64 [clusters + 1].
            The rows of cluster c are `rows[bounds[c] : bounds[c + 1]]`.
    """

    rows: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, cluster: NDArray[np.int32], clusters: int) -> Order:
        """Sort the pool rows by cluster.

        Args:
            cluster: Cluster of each pool row, int32 [pool rows].
            clusters: Number of clusters.
        """
        bounds = np.concatenate([[0], np.cumsum(np.bincount(cluster, minlength=clusters))])
        return cls(np.argsort(cluster, kind="stable"), bounds)


def take(pool: Embeddings, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read the vectors of the given rows, which may be in any order.

    Returns:
        Vectors in the order of `rows`, fp32 [len(rows), dim].

    Raises:
        SimgapError: A row is not finite or does not have unit norm.
    """
    ascending = np.argsort(rows)
    stored = to_single(pool.take(rows[ascending]))
    check_unit_norm(stored)
    vectors = np.empty_like(stored)
    vectors[ascending] = stored
    return vectors


def mark_within(vectors: NDArray[np.float32], limit: Limit, duplicate: NDArray[np.bool_]) -> None:
    """Set `duplicate` to true for the vectors that are too similar to an earlier vector.

    Args:
        vectors: fp32 [n, dim].
        limit: Largest allowed similarity.
        duplicate: bool [n], updated in place.
    """
    for start in range(0, len(vectors), TILE_ROWS):
        tile = vectors[start : start + TILE_ROWS]
        lower = vectors[: start + len(tile)]
        product = tile @ lower.T
        np.copyto(product[:, start:], -np.inf, where=NOT_LOWER[: len(tile), : len(tile)])
        duplicate[start : start + len(tile)] |= limit.exceeded(product, tile, lower)


def mark_against(
    vectors: NDArray[np.float32], lower: NDArray[np.float32], limit: Limit, duplicate: NDArray[np.bool_]
) -> None:
    """Set `duplicate` to true for the vectors that are too similar to a vector in `lower`.

    Vectors whose `duplicate` is already true are not compared again.

    Args:
        vectors: fp32 [n, dim].
        lower: Vectors of pool rows with smaller numbers, fp32 [m, dim].
        limit: Largest allowed similarity.
        duplicate: bool [n], updated in place.
    """
    unmarked = np.flatnonzero(~duplicate)
    for start in range(0, len(unmarked), TILE_ROWS):
        rows = unmarked[start : start + TILE_ROWS]
        tile = vectors[rows]
        duplicate[rows] = limit.exceeded(tile @ lower.T, tile, lower)


def duplicates_in_block(pool: Embeddings, order: Order, limit: Limit, block_rows: int, start: int) -> NDArray[np.bool_]:
    """Find the near-duplicates in a block of sorted rows; see `near_duplicates`.

    The block has the rows `order.rows[start : start + block_rows]`. This block may contain a part of
    one cluster, or several clusters.
    Memory: two blocks in fp32, and the products of a tile.

    Returns:
        bool [rows of the block]; true for near-duplicates.
    """
    rows = order.rows[start : start + block_rows]
    vectors = take(pool, rows)
    duplicate = np.zeros(len(rows), np.bool_)
    first, last = np.searchsorted(order.bounds, [start, start + len(rows) - 1], side="right") - 1
    bounds = order.bounds[first : last + 2].clip(start, start + len(rows)) - start
    for cluster in np.flatnonzero(np.diff(bounds) > 1):
        own = slice(bounds[cluster], bounds[cluster + 1])
        mark_within(vectors[own], limit, duplicate[own])
    # Only the first cluster of the block may have rows in earlier blocks. The rows of this cluster are therefore
    # compared with these earlier rows.
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
    """Find the near-duplicates in sections of the sorted rows, as tasks of an executor.

    Each section has `section` rows. The last section may have fewer rows.
    """

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
        find = partial(duplicates_in_block, self.pool, self.order, self.limit, self.block_rows)
        found = []
        threads = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(threads) as executor, threadpool_limits(1, "blas"):
            for duplicate in executor.map(find, range(start, start + self.sizes[number], self.block_rows)):
                found.append(duplicate)
                advance(len(duplicate))
        write_array(out, np.concatenate(found))


def near_duplicates(
    pool: Embeddings,
    cluster: NDArray[np.int32],
    clusters: int,
    eps: float,
    block_rows: int,
    scratch: Path,
    executor: Executor = LOCAL,
) -> NDArray[np.bool_]:
    """Find the near-duplicates in every cluster.

    A row is a near-duplicate if it is too similar to another row of its cluster, and the other row has a smaller
    number. The other row may be a near-duplicate too. The exact similarity must be strictly above the limit. Neither
    the block size nor the number of threads changes the result. Memory: two blocks in fp32 for each thread, and about
    17 bytes for each pool row.

    Args:
        pool: Embeddings of the pool.
        cluster: Cluster of each row, int32 [pool rows], in [0, clusters).
        clusters: Number of clusters.
        eps: Two rows are too similar if their similarity is above the limit 1 - eps.
        block_rows: Number of rows in a block.
        scratch: Folder of the finished sections. A restarted stage does not repeat these sections.
        executor: Executor that processes the sections. Every executor gives the same result.

    Returns:
        bool [pool rows]; true for near-duplicates.

    Raises:
        SimgapError: A row is not finite or does not have unit norm.
    """
    order = Order.of(cluster, clusters)
    parts = _Sections(pool, order, Limit(eps, pool.dim), block_rows, SECTION_BLOCKS * block_rows, scratch)
    run_parts(executor, parts, "deduplicate: near-duplicates", "row")
    duplicate = np.zeros(pool.rows, np.bool_)
    for number in range(len(parts.sizes)):
        start = number * parts.section
        duplicate[order.rows[start : start + parts.section]] = read_array(parts.path(number))
    return duplicate
