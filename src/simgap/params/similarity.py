"""Block `similarity`."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count


@dataclass(frozen=True, config=STRICT)
class SimilarityParameters:
    """What the similarity stage stores."""

    neighbours: Count
    """Nearest pool rows stored for each query."""
