"""Define the block `draw`, the parameters of generated toy worlds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, model_validator
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count, across_fields


@dataclass(frozen=True, config=STRICT)
class DrawParameters:
    """The seed and the size of a toy world."""

    seed: NonNegativeInt
    """Seed that determines every image and caption."""

    pool: Count
    """Number of samples in the pool, including planted and broken samples."""

    reference: Count
    """Number of samples in the reference."""

    queries: Count
    """Number of images in each benchmark."""

    image_size: Annotated[int, Field(ge=16)]
    """Width and height of every image, in pixels."""

    planted: NonNegativeInt
    """Number of planted copies of each kind. A planted copy is a pool sample that repeats another sample. The kinds are exact
    (same bytes), near (near-duplicate) and sibling (same scene, different image). Every kind has this many copies for each
    benchmark, for the reference and for the pool itself."""

    broken: NonNegativeInt
    """Number of pool samples whose image is truncated."""

    @model_validator(mode="after")
    def _fits(self) -> DrawParameters:
        if self.broken > self.pool:
            raise across_fields(f"broken is {self.broken}; it must be at most pool, {self.pool}")
        # The pool must have room for `planted` copies of each kind from each set. There are three kinds and eight sets:
        # six benchmarks, the reference and the pool. The pool also contains the originals of the copies from the pool.
        if 8 * 3 * self.planted + 3 * self.planted > self.pool:
            raise across_fields(
                f"planted is {self.planted}; it must be at most {self.pool // 27} for a pool of {self.pool} samples"
            )
        if self.planted > min(self.queries, self.reference) // 3:
            raise across_fields(f"planted is {self.planted}; it must be at most a third of queries and of reference")
        return self
