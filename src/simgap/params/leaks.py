"""Parameters of the search for copies."""

from __future__ import annotations

from dataclasses import dataclass

from simgap.core.errors import SimgapError


@dataclass(frozen=True)
class LeakParameters:
    """From which similarity on an image counts as copied.

    Attributes:
        threshold: a query counts as copied where its similarity to the pool exceeds this; None: calibrated on the pool's marks.
        false_positives: of a calibrated threshold, the largest share of queries without a marked copy that may count as copied.
    """

    threshold: float | None
    false_positives: float

    def check(self) -> None:
        """Raise SimgapError where a value is out of range."""
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise SimgapError(
                f"leaks.threshold: {self.threshold} is out of range; it should be a cosine, in [-1, 1], or null"
            )
        if not 0 <= self.false_positives < 1:
            raise SimgapError(f"leaks.false_positives: {self.false_positives} is out of range; it should be in [0, 1)")
