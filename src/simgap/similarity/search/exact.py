"""Compute canonical similarity: the exact inner product of two stored fp16 vectors.

A product of two fp16 numbers is a multiple of 2^-48. A sum of such products that stays below 2^4 needs at most 52 bits.
Therefore a float64 sum is exact in any order of additions, and every tile size and thread count gives the same bits.
Results are rounded once, to fp32, when they are stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.similarity.search.kernels import sum_pairs

NOT_UNIT_NORM = "embeddings: a row does not have unit norm; embed or import the set again."


def check_unit_norm(rows: NDArray[np.floating[Any]]) -> None:
    """Check that all rows [n, dim] have unit norm; only then are their float64 sums exact.

    Raises:
        SimgapError: A row is not finite or does not have unit norm.
    """
    single = rows.astype(np.float32, copy=False)
    norms = np.einsum("nd,nd->n", single, single)
    if not (np.abs(norms - 1) < 0.01).all():
        raise SimgapError(NOT_UNIT_NORM)


def exact_product(rows: NDArray[np.float16], queries: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the canonical similarity of all rows [n, dim] to all queries [q, dim].

    Returns:
        float64 [n, q], exact.

    Raises:
        SimgapError: A row is not finite or does not have unit norm.
    """
    check_unit_norm(rows)
    return rows.astype(np.float64) @ queries.T


def exact_pairs(
    rows: NDArray[np.float32], queries: NDArray[np.float32], row: NDArray[np.int64], query: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute the canonical similarity of the pairs (rows[row[i]], queries[query[i]]).

    Args:
        rows: Stored fp16 vectors in fp32, [n, dim]. The conversion is exact, and fp32 converts to float64 faster.
        queries: Stored fp16 vectors in fp32, [q, dim].
        row: Row of each pair.
        query: Query of each pair.

    Returns:
        float64 [pairs], exact.
    """
    similarity = np.empty(len(row), np.float64)
    sum_pairs(rows, queries, row, query, similarity)
    return similarity


def screening_error(dim: int) -> float:
    """Return an upper bound of |fp32 product - canonical similarity| for two vectors of about unit norm.

    The bound holds for any order of additions. Each of n = `dim` products and sums rounds by at most u = 2^-24. Together they
    add at most n u / (1 - n u) times the sum of |x_i q_i|, and the norms bound this sum. Underflow adds at most n 2^-126. The
    source is Higham, Accuracy and Stability of Numerical Algorithms, section 3.1.
    """
    rounding = dim * 2.0**-24
    return 1.02 * rounding / (1 - rounding) + dim * 2.0**-126


def slack(error: float) -> np.float32:
    """Return the largest distance of two screened values whose exact order is undecided.

    The value includes the rounding of the subtraction that applies it.

    Args:
        error: Largest error of one screened value.
    """
    return np.float32(2 * error + 2.0**-22)
