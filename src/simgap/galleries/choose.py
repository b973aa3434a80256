"""Choose the queries, pruned rows and duplicates to show. The number of chosen images does not grow with the pool."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from simgap.store.embeddings import Embeddings

# Memory does not grow with the pool, because columns are read in blocks of this many rows.
BLOCK_ROWS = 4_194_304
# Memory grows with this number, because similarities to this many rows are computed at a time in float64.
PRODUCT_ROWS = 8192
SIMILAR, LOST, RANDOM = "most similar to the pool", "loses most by pruning", "random"


def choose_queries(
    in_pool: NDArray[np.float32], after: NDArray[np.float32] | None, count: int, seed: int
) -> list[tuple[int, str]]:
    """Choose queries to show for up to three reasons.

    The first reason is the highest similarity to the pool. The second reason is the largest loss of similarity by
    pruning. The third reason is a random choice. A query is chosen for one reason only. If two queries have equal
    values, the query with the smaller number comes first.

    Args:
        in_pool: Similarity of each query to its nearest row in the whole pool, fp32 [queries].
        after: Similarity of each query to its nearest row in a split, fp32 [queries]. All values are NaN if the split
            is empty. None if no split is shown. Then the second reason is left out.
        count: Largest number of queries for each reason.
        seed: Seed of the random queries.

    Returns:
        A pair (query number, reason) for each chosen query, in the order of the reasons.
    """
    orders = {SIMILAR: np.argsort(-in_pool, kind="stable")}
    if after is not None:
        # If the split is empty, every difference is NaN. Each NaN becomes infinity, because the smallest differences
        # come first.
        orders[LOST] = np.argsort(np.nan_to_num(after - in_pool, nan=np.inf), kind="stable")
    orders[RANDOM] = np.random.default_rng(seed).permutation(len(in_pool))
    chosen: dict[int, str] = {}
    for reason, order in orders.items():
        free = [int(query) for query in order if int(query) not in chosen]
        chosen.update(dict.fromkeys(free[:count], reason))
    return list(chosen.items())


def most_similar_rows(candidates: NDArray[np.bool_], best: NDArray[np.float32], count: int) -> list[int]:
    """Return the candidate rows with the highest similarity, the most similar row first.

    If two rows have equal similarities, the row with the smaller number comes first. Memory holds one block of rows.

    Args:
        candidates: Rows to choose from, bool [pool rows].
        best: Highest similarity of each row to a query, fp32 [pool rows]. The array may be memory-mapped.
        count: Largest number of rows to return.

    Returns:
        At most `count` row numbers.
    """
    largest: list[tuple[float, int]] = []
    for start in range(0, len(candidates), BLOCK_ROWS):
        rows = start + np.flatnonzero(candidates[start : start + BLOCK_ROWS])
        order = np.argsort(-best[rows], kind="stable")[:count]
        found = [(-float(best[row]), int(row)) for row in rows[order]]
        largest = heapq.nsmallest(count, largest + found)
    return [row for _, row in largest]


def nearest_lower_rows(pool: Embeddings, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find, for each given row, the most similar row with a smaller number.

    If several rows are equally similar, the function returns the one with the smallest number. The function reads only
    rows before the last given row.

    Args:
        pool: Embeddings of the pool.
        rows: Row numbers in ascending order, int64 [n]. Row 0 must not be among them.

    Returns:
        The number of the most similar row for each given row, int64 [n]. Then the similarity of the two rows, float64
        [n].
    """
    vectors = pool.take(rows).astype(np.float64)
    nearest, similarity = np.full(len(rows), -1, np.int64), np.full(len(rows), -np.inf)
    for first, block in pool.blocks(PRODUCT_ROWS):
        if not len(rows) or first >= rows[-1]:
            break
        products = block.astype(np.float64) @ vectors.T
        products[first + np.arange(len(block))[:, None] >= rows] = -np.inf
        at = products.argmax(axis=0)
        found = products[at, np.arange(len(rows))]
        closer = found > similarity
        nearest[closer], similarity[closer] = first + at[closer], found[closer]
    return nearest, similarity
