"""Parameters of scoring against marks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroundTruthParameters:
    """`eps`: the values at which precision and recall of deduplication are given."""

    eps: list[float]
