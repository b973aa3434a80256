"""Parameters of the similarity stage."""

from __future__ import annotations

from dataclasses import dataclass

from simgap.core.errors import SimgapError

ENGINES = ("auto", "cpu", "gpu", "faiss")


@dataclass(frozen=True)
class SimilarityParameters:
    """How similarity is measured.

    Attributes:
        neighbours: nearest pool rows that are kept for every query.
        engine: what multiplies, one of ENGINES; all give the same bits.
    """

    neighbours: int
    engine: str

    def check(self) -> None:
        """Raise SimgapError where a value is out of range."""
        if self.neighbours < 1:
            raise SimgapError(f"similarity.neighbours: {self.neighbours} is out of range; it should be at least 1")
        if self.engine not in ENGINES:
            raise SimgapError(f"similarity.engine: {self.engine!r} is none of {', '.join(ENGINES)}")
