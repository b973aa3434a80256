"""Parameters of the similarity stage."""

from __future__ import annotations

from dataclasses import dataclass

from simgap.errors import SimgapError


@dataclass(frozen=True)
class SimilarityParameters:
    """How similarity is measured.

    Attributes:
        neighbours: nearest pool rows that are kept for every query.
        tile_rows: pool rows taken at a time by a thread; changes memory and speed, not results.
    """

    neighbours: int
    tile_rows: int

    def check(self) -> None:
        """Raise SimgapError where a value is out of range."""
        for field in ("neighbours", "tile_rows"):
            if getattr(self, field) < 1:
                raise SimgapError(
                    f"similarity.{field}: {getattr(self, field)} is out of range; it should be at least 1"
                )
