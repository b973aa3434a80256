"""Parameters of the comparison."""

from __future__ import annotations

from dataclasses import dataclass

from simgap.core.errors import SimgapError


@dataclass(frozen=True)
class CompareParameters:
    """How splits are compared.

    Attributes:
        resamples: bootstrap resamples.
        seed: seed of the bootstrap.
        equivalence_margin: largest difference of accuracy that counts as equal, in (0, 1).
        in_distribution_benchmark: the benchmark without distribution shift, from which robustness is judged.
    """

    resamples: int
    seed: int
    equivalence_margin: float
    in_distribution_benchmark: str

    def check(self) -> None:
        """Raise SimgapError where a value is out of range."""
        if self.resamples < 100:
            raise SimgapError(f"compare.resamples: {self.resamples} is out of range; it should be at least 100")
        if not 0 < self.equivalence_margin < 1:
            raise SimgapError(
                f"compare.equivalence_margin: {self.equivalence_margin} is out of range; it should be in (0, 1)"
            )
