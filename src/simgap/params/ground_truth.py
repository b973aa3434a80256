"""Define the block `ground_truth`, the parameters of scores on pools with annotated samples."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT


@dataclass(frozen=True, config=STRICT)
class GroundTruthParameters:
    """How the embedder, deduplication and pruning are scored on a pool with annotated samples."""

    eps: list[Annotated[float, Field(ge=0, le=2)]]
    """Values of `deduplicate.eps` for which the precision and recall of deduplication are computed."""
