"""Define the block `similarity`, the parameters of the output of the similarity stage."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count


@dataclass(frozen=True, config=STRICT)
class SimilarityParameters:
    """The nearest neighbours that the similarity stage stores."""

    neighbours: Count
    """Number of nearest pool rows that are stored for each query."""
