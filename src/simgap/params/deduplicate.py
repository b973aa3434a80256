"""Block `deduplicate`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count


@dataclass(frozen=True, config=STRICT)
class DeduplicateParameters:
    """How near-duplicates are removed: the rule of the paper's code."""

    eps: Annotated[float, Field(ge=0, le=2)] | None
    """A row is dropped if its similarity to a lower row of its cluster exceeds 1 - eps (paper: 0.124); null keeps all."""

    clusters: Count
    """Number of k-means clusters (paper: 50,000); 1 compares all pairs."""

    iterations: Count
    """Iterations of k-means."""

    sample: Count
    """Rows that k-means is fitted on, drawn with `seed`. FAISS advises 39 to 256 a cluster. Each takes 8 * dim bytes of memory.
    """

    seed: NonNegativeInt
    """Seed of the sample and of k-means."""
