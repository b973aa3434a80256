"""Parameters of deduplication."""

from __future__ import annotations

from dataclasses import dataclass

from simgap.core.errors import SimgapError


@dataclass(frozen=True)
class DeduplicateParameters:
    """The rule of the paper's code: within a cluster, drop a row too similar to a lower one.

    Attributes:
        eps: a row goes where its similarity to a lower row exceeds 1 - eps (paper: 0.124); null keeps all rows.
        clusters: number of k-means clusters (paper: 50,000); 1 compares all pairs.
        iterations: k-means iterations.
        sample: rows that k-means is fitted on, all of them, drawn with `seed`; FAISS advises 39 to 256 a cluster. Each takes
            8 * dim bytes of memory.
        seed: seed of the sample and of k-means.
        block_rows: rows compared at a time; changes memory and speed, not results.
    """

    eps: float | None
    clusters: int
    iterations: int
    sample: int
    seed: int
    block_rows: int

    def check(self) -> None:
        """Raise SimgapError where a value is out of range."""
        if self.eps is not None and not 0 <= self.eps <= 2:
            raise SimgapError(f"deduplicate.eps: {self.eps} is out of range; it should be null or in [0, 2]")
        for field in ("clusters", "iterations", "sample", "block_rows"):
            if getattr(self, field) < 1:
                raise SimgapError(
                    f"deduplicate.{field}: {getattr(self, field)} is out of range; it should be at least 1"
                )
