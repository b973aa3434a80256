"""Canonical similarity: the inner product of two stored fp16 vectors, exact.

A product of two fp16 numbers is a multiple of 2^-48, and a sum of them that stays below 2^4 needs at most 52 bits, so a
float64 sum is exact whatever the order of its additions: every tile size and thread count gives the same bits. Results
are rounded once, to fp32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.similarity.search.kernels import sum_pairs


def check_unit_norm(rows: NDArray[np.floating[Any]]) -> None:
    """Refuse rows [n, dim] whose sums would not be exact.

    Raises:
        SimgapError: a row is not finite or not of unit norm.
    """
    single = rows.astype(np.float32, copy=False)
    norms = np.einsum("nd,nd->n", single, single)
    if not (np.abs(norms - 1) < 0.01).all():
        raise SimgapError("embeddings: a row is not of unit norm; embed or import the set anew")


def exact_product(rows: NDArray[np.float16], queries: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the canonical similarity of all rows [n, dim] to all queries [q, dim]: float64 [n, q], exact.

    Raises:
        SimgapError: a row is not finite or not of unit norm.
    """
    check_unit_norm(rows)
    return rows.astype(np.float64) @ queries.T


def exact_pairs(
    rows: NDArray[np.float32], queries: NDArray[np.float32], row: NDArray[np.int64], query: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give the canonical similarity of the pairs (row[i], query[i]): float64 [pairs], exact.

    Rows [n, dim] and queries [q, dim] are stored fp16 vectors in fp32, which holds them exactly and converts faster.
    """
    similarity = np.empty(len(row), np.float64)
    sum_pairs(rows, queries, row, query, similarity)
    return similarity


def screening_error(dim: int) -> float:
    """Bound |fp32 product - canonical similarity| of two vectors of about unit norm, whatever the order of additions.

    Each of `dim` products and sums rounds by at most u = 2^-24: in all n u / (1 - n u) times the sum of |x_i q_i|, which the
    norms bound (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); what underflows adds at most n 2^-126.
    """
    rounding = dim * 2.0**-24
    return 1.02 * rounding / (1 - rounding) + dim * 2.0**-126


def slack(error: float) -> np.float32:
    """Give how far two screened values may lie apart whose exact order is open; taking it off rounds once more."""
    return np.float32(2 * error + 2.0**-22)
