"""Choose the queries, pruned rows and duplicates to show: a fixed number for a pool of any size."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from simgap.store.embeddings import Embeddings

# A column is read in blocks of this many rows.
BLOCK_ROWS = 4_194_304
# Products with this many rows are held in float64 at a time.
PRODUCT_ROWS = 8192
SIMILAR, LOST, RANDOM = "most similar to the pool", "loses most by pruning", "random"


def choose_queries(
    in_pool: NDArray[np.float32], after: NDArray[np.float32] | None, count: int, seed: int
) -> list[tuple[int, str]]:
    """Choose queries, and return each with the reason.

    No query is chosen twice. If values are equal, the lower query comes first.

    Args:
        in_pool: s_q of the whole pool, fp32 [queries].
        after: s_q of the rows that a rule kept, NaN if it kept none, fp32 [queries]; None if no rule pruned.
        count: the number of queries for each reason.
        seed: the seed of the random queries.
    """
    orders = {SIMILAR: np.argsort(-in_pool, kind="stable")}
    if after is not None:
        # If no row is kept, the loss is unknown; such queries come last.
        orders[LOST] = np.argsort(np.nan_to_num(after - in_pool, nan=np.inf), kind="stable")
    orders[RANDOM] = np.random.default_rng(seed).permutation(len(in_pool))
    chosen: dict[int, str] = {}
    for reason, order in orders.items():
        free = [int(query) for query in order if int(query) not in chosen]
        chosen.update(dict.fromkeys(free[:count], reason))
    return list(chosen.items())


def most_similar_rows(candidates: NDArray[np.bool_], best: NDArray[np.float32], count: int) -> list[int]:
    """Return the candidates with the highest similarity, highest first.

    If values are equal, the lower row comes first. Memory: a block.

    Args:
        candidates: the rows to choose from, bool [pool rows].
        best: the highest similarity of each row to a query, fp32 [pool rows]; it may be mapped.
        count: the number of rows to return.
    """
    largest: list[tuple[float, int]] = []
    for start in range(0, len(candidates), BLOCK_ROWS):
        rows = start + np.flatnonzero(candidates[start : start + BLOCK_ROWS])
        order = np.argsort(-best[rows], kind="stable")[:count]
        found = [(-float(best[row]), int(row)) for row in rows[order]]
        largest = heapq.nsmallest(count, largest + found)
    return [row for _, row in largest]


def nearest_lower_rows(pool: Embeddings, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the most similar lower row for each of some rows.

    If similarities are equal, the lower row is found. Only rows below the last of `rows` are read.

    Args:
        pool: the embeddings of the pool.
        rows: ascending rows, without row 0, int64 [n].

    Returns:
        The found rows, int64 [n], and their similarities, float64 [n].
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
