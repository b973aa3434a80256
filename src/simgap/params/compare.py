"""Define the block `compare`, the parameters of the comparison of splits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT


@dataclass(frozen=True, config=STRICT)
class CompareParameters:
    """How splits are compared."""

    resamples: Annotated[int, Field(ge=100)]
    """Number of bootstrap resamples."""

    seed: NonNegativeInt
    """Seed of the bootstrap."""

    equivalence_margin: Annotated[float, Field(gt=0, lt=1)]
    """Two accuracies are equivalent if they differ by less than this margin."""

    in_distribution_benchmark: str
    """Name of the benchmark without distribution shift. Robustness compares the other benchmarks with this benchmark."""
