"""Parameters of scoring against marks."""

from __future__ import annotations

from dataclasses import dataclass

from simgap.core.errors import SimgapError


@dataclass(frozen=True)
class GroundTruthParameters:
    """`eps`: the values at which precision and recall of deduplication are given."""

    eps: list[float]

    def check(self) -> None:
        """Raise SimgapError where a value is out of range."""
        for eps in self.eps:
            if not 0 <= eps <= 2:
                raise SimgapError(f"ground_truth: eps: {eps} is out of range; it should be in [0, 2]")
