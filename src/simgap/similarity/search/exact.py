"""Compute exact similarities. The exact similarity of two vectors is the inner product of their stored fp16 values.

A product of two fp16 numbers is a multiple of 2^-48. Let a sum of such products stay below 2^4. Such a sum needs at
most 52 bits, so a float64 sum is exact in any order of additions. For this reason, every tile size and thread count
gives the same bits. The results are rounded to fp32 only once, when they are stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.similarity.search.kernels import sum_pairs

NOT_UNIT_NORM = "embeddings: a row does not have unit norm; embed or import the set again."


def check_unit_norm(rows: NDArray[np.floating[Any]]) -> None:
    """Check that all rows have unit norm. Exact similarities are exact in float64 only for such rows.

    Args:
        rows: Vectors, [n, dim].

    Raises:
        SimgapError: A row is not finite or does not have unit norm.
    """
    single = rows.astype(np.float32, copy=False)
    norms = np.einsum("nd,nd->n", single, single)
    if not (np.abs(norms - 1) < 0.01).all():
        raise SimgapError(NOT_UNIT_NORM)


def exact_product(rows: NDArray[np.float16], queries: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the exact similarity of all rows to all queries.

    Args:
        rows: fp16 [n, dim].
        queries: Stored fp16 vectors, converted to float64, [q, dim].

    Returns:
        Exact similarities, float64 [n, q].

    Raises:
        SimgapError: A row is not finite or does not have unit norm.
    """
    check_unit_norm(rows)
    return rows.astype(np.float64) @ queries.T


def exact_pairs(
    rows: NDArray[np.float32], queries: NDArray[np.float32], row: NDArray[np.int64], query: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute the exact similarity of the pairs (rows[row[i]], queries[query[i]]).

    The vectors are stored in fp16, and the caller converts them to fp32. This conversion is exact. The later conversion
    to float64 is faster from fp32 than from fp16.

    Args:
        rows: Vectors of the rows, fp32 [n, dim].
        queries: Vectors of the queries, fp32 [q, dim].
        row: Position in `rows` for each pair, int64 [pairs].
        query: Position in `queries` for each pair, int64 [pairs].

    Returns:
        Exact similarity of each pair, float64 [pairs].
    """
    similarity = np.empty(len(row), np.float64)
    sum_pairs(rows, queries, row, query, similarity)
    return similarity


def screening_error(dim: int) -> float:
    """Return an upper bound of |fp32 product - exact similarity| for two vectors of about unit norm.

    The bound holds for any order of additions. Let n be the number of dimensions `dim`. Each of the n products and sums
    has a relative rounding error of at most u = 2^-24. Together, these errors add at most n u / (1 - n u) times the sum
    of |x_i q_i|. The norms of the vectors bound this sum. Underflow adds at most n 2^-126. The source is Higham,
    Accuracy and Stability of Numerical Algorithms, section 3.1.
    """
    rounding = dim * 2.0**-24
    return 1.02 * rounding / (1 - rounding) + dim * 2.0**-126


def slack(error: float) -> np.float32:
    """Return the largest difference of two screened values whose order is undecided.

    Screened values are approximate. If two values differ by more than the slack, their exact values have the same
    order. The slack also covers a rounding error: the caller subtracts the slack from a screened value, and this
    subtraction rounds.

    Args:
        error: Largest error of one screened value.
    """
    return np.float32(2 * error + 2.0**-22)
