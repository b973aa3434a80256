"""Define the block `deduplicate`, the parameters for removing near-duplicates from the pool."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count


@dataclass(frozen=True, config=STRICT)
class DeduplicateParameters:
    """How near-duplicates are removed from the pool. The rule is that of the paper's code."""

    eps: Annotated[float, Field(ge=0, le=2)] | None
    """Largest dissimilarity of near-duplicates. A row is dropped if its cluster contains a row with a smaller number and the
    similarity of the two rows exceeds 1 - eps. The paper uses 0.124. With null, all rows are kept."""

    clusters: Count
    """Number of k-means clusters. The paper uses 50,000. With 1, all pairs of rows are compared."""

    iterations: Count
    """Number of iterations of k-means."""

    sample: Count
    """Number of random rows on which k-means is fitted. FAISS recommends 39 to 256 rows for each cluster. Each row needs 8 * dim
    bytes of memory."""

    seed: NonNegativeInt
    """Seed of the choice of the random rows, and of k-means."""
