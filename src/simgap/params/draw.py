"""Block `draw`: toy worlds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, model_validator
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count, across_fields


@dataclass(frozen=True, config=STRICT)
class DrawParameters:
    """The size of a toy world."""

    seed: NonNegativeInt
    """Decides every image and caption."""

    pool: Count
    """Samples of the pool, planted and broken ones included."""

    reference: Count
    """Samples of the reference."""

    queries: Count
    """Images of each benchmark."""

    image_size: Annotated[int, Field(ge=16)]
    """Width and height of every image, in pixels."""

    planted: NonNegativeInt
    """Planted rows of each kind (exact, near, sibling), for each benchmark, the reference and the pool itself."""

    broken: NonNegativeInt
    """Pool samples whose image is truncated."""

    @model_validator(mode="after")
    def _fits(self) -> DrawParameters:
        if self.broken > self.pool:
            raise across_fields(f"broken is {self.broken}; it must be at most pool, {self.pool}")
        # Each kind of planted row repeats each of eight sets. The rows that repeat the pool itself also need originals.
        if 8 * 3 * self.planted + 3 * self.planted > self.pool:
            raise across_fields(f"planted is {self.planted}; a pool of {self.pool} has room for {self.pool // 27}")
        if self.planted > min(self.queries, self.reference) // 3:
            raise across_fields(f"planted is {self.planted}; it must be at most a third of queries and of reference")
        return self
