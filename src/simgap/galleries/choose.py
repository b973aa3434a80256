"""Which queries, pruned rows and duplicates are shown: a bounded number, at any pool size."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from simgap.store.embeddings import Embeddings

# Rows of a column that are looked at together.
BLOCK_ROWS = 4_194_304
# Rows whose products are held in float64.
PRODUCT_ROWS = 8192
SIMILAR, LOST, RANDOM = "most similar to the pool", "loses most by pruning", "random"


def choose_queries(
    in_pool: NDArray[np.float32], after: NDArray[np.float32] | None, count: int, seed: int
) -> list[tuple[int, str]]:
    """Choose queries and say why: `count` of each kind, none twice, ties to the lower query.

    Args:
        in_pool: s_q of the whole pool, fp32 [queries].
        after: s_q of what a rule kept, or None where no rule pruned; NaN where it kept nothing.
    """
    orders = {SIMILAR: np.argsort(-in_pool, kind="stable")}
    if after is not None:
        # Where nothing is kept the loss is not known: last.
        orders[LOST] = np.argsort(np.nan_to_num(after - in_pool, nan=np.inf), kind="stable")
    orders[RANDOM] = np.random.default_rng(seed).permutation(len(in_pool))
    chosen: dict[int, str] = {}
    for why, order in orders.items():
        free = [int(query) for query in order if int(query) not in chosen]
        chosen.update(dict.fromkeys(free[:count], why))
    return list(chosen.items())


def most_similar_rows(candidates: NDArray[np.bool_], best: NDArray[np.float32], count: int) -> list[int]:
    """Give the rows of the largest values among the candidates, ties to the lower row. Memory: a block.

    Args:
        candidates: bool [pool rows].
        best: fp32 [pool rows], may be mapped.
    """
    largest: list[tuple[float, int]] = []
    for start in range(0, len(candidates), BLOCK_ROWS):
        rows = start + np.flatnonzero(candidates[start : start + BLOCK_ROWS])
        order = np.argsort(-best[rows], kind="stable")[:count]
        found = [(-float(best[row]), int(row)) for row in rows[order]]
        largest = heapq.nsmallest(count, largest + found)
    return [row for _, row in largest]


def nearest_lower_rows(pool: Embeddings, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each of ascending `rows`, none of them 0, give the nearest row below it, int64, and their similarity, float64.

    Ties go to the lower row. Only rows below the last are read.
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
