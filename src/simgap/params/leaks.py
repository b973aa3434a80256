"""Block `leaks`: the search for copies of test images in the pool."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Cosine


@dataclass(frozen=True, config=STRICT)
class LeakParameters:
    """When a test image counts as copied."""

    threshold: Cosine | None
    """A query counts as copied if its similarity to the pool exceeds this; null calibrates it on the pool's annotations."""

    false_positives: Annotated[float, Field(ge=0, lt=1)]
    """Largest share of queries without an annotated copy that a calibrated threshold may count as copied."""
