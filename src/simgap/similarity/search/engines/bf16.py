"""Compute inner products in bf16, and compute a bound on the error of each product.

This module is for CPUs that have bf16 instructions.

Let x and q be unit vectors, and let x' and q' be their roundings to bf16. The error of a product is <x, q> - <x', q'> =
<x - x', q> + <x', q - q'>. The differences x - x' and q - q' are the rounding residuals. By the Cauchy-Schwarz
inequality, the norms of the residuals bound the error. This module computes these norms from the actual vectors.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from simgap.similarity.search.exact import screening_error

# The error bounds must hold for every vector that `check_unit_norm` accepts. This value is the largest norm that the
# check accepts, plus an allowance because the check itself rounds.
NORM = 1.006


def _rounded(vectors: NDArray[np.float32]) -> tuple[torch.Tensor, float]:
    """Round vectors to bf16.

    Args:
        vectors: fp32 [n, dim].

    Returns:
        The rounded vectors, bf16 [n, dim], and an upper bound of the norms of their rounding residuals.
    """
    single = torch.from_numpy(vectors)
    rounded = single.to(torch.bfloat16)
    residual = torch.linalg.vector_norm(single - rounded.float(), dim=1)
    # fp32 represents each residual exactly, but the computation of the norm rounds. The factor 1.001 covers this
    # rounding.
    return rounded, 1.001 * float(residual.max())


class Bf16Queries:
    """Store queries in bf16. Memory: two bytes for each query and dimension."""

    def __init__(self, queries: NDArray[np.float32]) -> None:
        """Round the queries to bf16.

        Args:
            queries: Vectors of the queries, fp32 [queries, dim].
        """
        self._queries, self._residual = _rounded(queries)

    def products(self, rows: NDArray[np.float32]) -> Bf16Products:
        """Prepare the products of the rows of a tile and the queries.

        Args:
            rows: Vectors of the tile, fp32 [rows, dim].

        Returns:
            An object that computes these products block by block.
        """
        return Bf16Products(rows, self._queries, self._residual)


class Bf16Products:
    """Multiply the rows of one tile by blocks of queries, in bf16.

    Attributes:
        error: Upper bound of the error of a product. The bound covers the rounding residuals, the fp32 sums, and the
            rounding of the product to the eight bits of bf16. It also covers the error of tiny terms that become zero
            in the sums (underflow).
    """

    def __init__(self, rows: NDArray[np.float32], queries: torch.Tensor, residual: float) -> None:
        """Round the rows to bf16 and compute the error bound.

        Args:
            rows: Vectors of the tile, fp32 [rows, dim].
            queries: Vectors of the queries, bf16 [queries, dim].
            residual: Upper bound of the norms of the queries' rounding residuals.
        """
        self._rows, row_residual = _rounded(rows)
        self._queries = queries
        sums = 2 * screening_error(rows.shape[1])
        product = (NORM + row_residual) * (NORM + residual) + sums
        self.error = NORM * row_residual + (NORM + row_residual) * residual + sums + product * 2.0**-8

    def write(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Compute the products of all rows of the tile and a range of queries.

        Args:
            start: Number of the first query.
            stop: Number after the last query.
            out: Array for the products, fp32 [rows, stop - start].
        """
        # The caller already searches one tile in each thread, so torch must not start more threads.
        torch.set_num_threads(1)
        torch.from_numpy(out).copy_(self._rows @ self._queries[start:stop].T)
