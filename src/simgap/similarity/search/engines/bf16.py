"""Products in bf16 on processors that have instructions for it, with a bound on how far each may be off.

Of unit vectors x and q, rounded to x' and q', <x, q> - <x', q'> is <x - x', q> + <x', q - q'>: by Cauchy-Schwarz no more
than the norms of what rounding left, which are taken from the vectors at hand.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from simgap.similarity.search.exact import screening_error

# The largest norm that `check_unit_norm` lets pass, and room for its own rounding.
NORM = 1.006


def _rounded(vectors: NDArray[np.float32]) -> tuple[torch.Tensor, float]:
    """Round vectors to bf16; give them and the largest norm of a residual, itself exact in fp32 but for its sum."""
    single = torch.from_numpy(vectors)
    rounded = single.to(torch.bfloat16)
    residual = torch.linalg.vector_norm(single - rounded.float(), dim=1)
    return rounded, 1.001 * float(residual.max())


class Bf16Queries:
    """Queries, fp32 [queries, dim], in bf16. Memory: two bytes a component."""

    def __init__(self, queries: NDArray[np.float32]) -> None:
        self._queries, self._residual = _rounded(queries)

    def products(self, rows: NDArray[np.float32]) -> Bf16Products:
        """Prepare for the products with the rows of a tile, fp32 [rows, dim]."""
        return Bf16Products(rows, self._queries, self._residual)


class Bf16Products:
    """The products of a tile with blocks of queries.

    Attributes:
        error: how far a product may be off: residuals, sums in fp32 that may flush what underflows, and the product's own
            rounding to bf16, of eight bits.
    """

    def __init__(self, rows: NDArray[np.float32], queries: torch.Tensor, residual: float) -> None:
        self._rows, of_rows = _rounded(rows)
        self._queries = queries
        sums = 2 * screening_error(rows.shape[1])
        product = (NORM + of_rows) * (NORM + residual) + sums
        self.error = NORM * of_rows + (NORM + of_rows) * residual + sums + product * 2.0**-8

    def write(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Write the products with queries start to stop, fp32 [rows, stop - start]."""
        # Threads are the caller's: it has a tile for each of them.
        torch.set_num_threads(1)
        torch.from_numpy(out).copy_(self._rows @ self._queries[start:stop].T)
