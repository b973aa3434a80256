"""Compute products in bf16 on CPUs that have instructions for it, with a bound on the error of each product.

Let x and q be unit vectors, and x' and q' their roundings to bf16. Then <x, q> - <x', q'> = <x - x', q> + <x', q - q'>. By
Cauchy-Schwarz, the norms of the rounding residuals x - x' and q - q' bound the error. They are computed from the actual
vectors.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from simgap.similarity.search.exact import screening_error

# This is the largest norm that `check_unit_norm` accepts, plus an allowance for the rounding of the check.
NORM = 1.006


def _rounded(vectors: NDArray[np.float32]) -> tuple[torch.Tensor, float]:
    """Round vectors to bf16, and return them with the largest norm of a residual.

    A residual is exact in fp32; only the sum of its norm rounds.
    """
    single = torch.from_numpy(vectors)
    rounded = single.to(torch.bfloat16)
    residual = torch.linalg.vector_norm(single - rounded.float(), dim=1)
    return rounded, 1.001 * float(residual.max())


class Bf16Queries:
    """Queries in bf16. Memory: two bytes for each component."""

    def __init__(self, queries: NDArray[np.float32]) -> None:
        """Round the queries, fp32 [queries, dim], to bf16."""
        self._queries, self._residual = _rounded(queries)

    def products(self, rows: NDArray[np.float32]) -> Bf16Products:
        """Prepare the products with the rows of a tile, fp32 [rows, dim]."""
        return Bf16Products(rows, self._queries, self._residual)


class Bf16Products:
    """The products of a tile with blocks of queries.

    Attributes:
        error: Largest error of a product. It covers the residuals, the fp32 sums, and the rounding of the product to bf16.
            The sums may flush underflows to zero, and bf16 has eight bits.
    """

    def __init__(self, rows: NDArray[np.float32], queries: torch.Tensor, residual: float) -> None:
        """Round the rows to bf16 and compute the error bound.

        Args:
            rows: fp32 [rows, dim].
            queries: bf16 [queries, dim].
            residual: Largest norm of a query's rounding residual.
        """
        self._rows, row_residual = _rounded(rows)
        self._queries = queries
        sums = 2 * screening_error(rows.shape[1])
        product = (NORM + row_residual) * (NORM + residual) + sums
        self.error = NORM * row_residual + (NORM + row_residual) * residual + sums + product * 2.0**-8

    def write(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Write the products with queries `start` to `stop` to `out`, fp32 [rows, stop - start]."""
        # The caller searches one tile in each of its threads, so torch must not start more.
        torch.set_num_threads(1)
        torch.from_numpy(out).copy_(self._rows @ self._queries[start:stop].T)
