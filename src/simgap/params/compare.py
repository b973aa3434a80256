"""Block `compare`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT


@dataclass(frozen=True, config=STRICT)
class CompareParameters:
    """How splits are compared."""

    resamples: Annotated[int, Field(ge=100)]
    """Bootstrap resamples."""

    seed: NonNegativeInt
    """Seed of the bootstrap."""

    equivalence_margin: Annotated[float, Field(gt=0, lt=1)]
    """Accuracies that differ by less count as equal."""

    in_distribution_benchmark: str
    """The benchmark without distribution shift, from which robustness is judged."""
