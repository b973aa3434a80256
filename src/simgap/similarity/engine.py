"""One pass over a set: for each of its rows the nearest query and the margin, for each query its nearest rows.

Similarity is canonical: the inner product of the stored fp16 vectors, exact. A product of two fp16 numbers is a multiple
of 2^-48, and a sum of them that stays below 2^4 needs at most 52 bits, so a float64 product is exact whatever the order
of its additions: every block size and thread count gives the same bits. Results are rounded once, to fp32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simgap.errors import SimgapError


@dataclass(frozen=True)
class RowAnswers:
    """For the rows of a block: what the pruning rules read.

    Attributes:
        best: fp32 [rows], the largest similarity to a query.
        nearest_query: int32 [rows], its query; the lower one on ties.
        margin: fp32 [rows], the largest of similarity minus that query's reference similarity; a difference taken in
            float64, then rounded.
    """

    best: NDArray[np.float32]
    nearest_query: NDArray[np.int32]
    margin: NDArray[np.float32]


def exact_product(rows: NDArray[np.float16], queries: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the canonical similarity of fp16 rows [n, dim] and queries [q, dim]: float64 [n, q], exact.

    Raises:
        SimgapError: a row is not finite or not of unit norm, where sums would not be exact.
    """
    wide = rows.astype(np.float64)
    norms = np.einsum("nd,nd->n", wide, wide)
    if not (np.abs(norms - 1) < 0.01).all():
        raise SimgapError("embeddings: a row is not of unit norm; embed or import the set anew")
    return wide @ queries.T


def answer_rows(similarity: NDArray[np.float64], reference_similarity: NDArray[np.float64]) -> RowAnswers:
    """Reduce a block of similarities [rows, queries] by row. Peak memory: one more block."""
    nearest = similarity.argmax(axis=1)
    return RowAnswers(
        best=np.take_along_axis(similarity, nearest[:, None], axis=1)[:, 0].astype(np.float32),
        nearest_query=nearest.astype(np.int32),
        margin=(similarity - reference_similarity).max(axis=1).astype(np.float32),
    )


class NearestRows:
    """The k nearest rows of every query, over blocks that come in row order; ties go to the lower row.

    State that merges: `similarity` float64 [queries, k], descending, -inf where there are fewer than k rows, and `row`
    int64 [queries, k], -1 there.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.similarity = np.full((queries, k), -np.inf)
        self.row = np.full((queries, k), -1, np.int64)

    def update(self, first_row: int, similarity: NDArray[np.float64]) -> None:
        """Take in a block of similarities [rows, queries] whose rows start at `first_row`, above all earlier rows."""
        queries, k = self.similarity.shape
        rows = len(similarity)
        contends = similarity > self.similarity[:, -1]
        if rows > k:
            contends &= similarity >= np.partition(similarity, rows - k, axis=0)[rows - k]
        query, row = np.nonzero(contends.T)
        query = np.concatenate([np.repeat(np.arange(queries), k), query])
        candidate = np.concatenate([self.similarity.ravel(), similarity[row, query[queries * k :]]])
        row = np.concatenate([self.row.ravel(), row + first_row])
        # An absent neighbour is -inf and comes after every real one, whatever its row number.
        order = np.lexsort((row, -candidate, query))
        rank = np.arange(len(order)) - np.searchsorted(query[order], query[order])
        kept = order[rank < k]
        self.similarity = candidate[kept].reshape(queries, k)
        self.row = row[kept].reshape(queries, k)


def nearest_rows(
    blocks: Iterable[tuple[int, NDArray[np.float16]]], queries: NDArray[np.float16], k: int
) -> NearestRows:
    """Find the k nearest rows of each query [q, dim] among blocks of (first row, fp16 vectors)."""
    wide = queries.astype(np.float64)
    nearest = NearestRows(len(queries), k)
    for first_row, block in blocks:
        nearest.update(first_row, exact_product(block, wide))
    return nearest
