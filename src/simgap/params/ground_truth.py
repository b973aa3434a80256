"""Block `ground_truth`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT


@dataclass(frozen=True, config=STRICT)
class GroundTruthParameters:
    """How a pool with annotated samples is scored."""

    eps: list[Annotated[float, Field(ge=0, le=2)]]
    """Values of `deduplicate.eps` for which precision and recall are computed."""
