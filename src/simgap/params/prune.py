"""Block `prune`: splits by rule and name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Name, Share, unique

Benchmarks = Annotated[list[str], Field(min_length=1), AfterValidator(unique)]
Keep = NonNegativeInt | Share


@dataclass(frozen=True, config=STRICT)
class ImagenetLikeParameters:
    """A split in which no row is closer to a query than the reference is, plus the threshold."""

    benchmarks: Benchmarks
    """Benchmarks whose queries the rule uses."""


@dataclass(frozen=True, config=STRICT)
class SimilarityRankParameters:
    """A split of the rows that are most similar, or least similar, to benchmarks."""

    benchmarks: Benchmarks
    """Benchmarks whose queries the rule uses."""

    join: Literal["max", "mean"]
    """How a row's similarities to several benchmarks become one number."""

    keep: Keep
    """Rows to keep: a count (an integer), or a fraction of full (in [0.0, 1.0])."""


@dataclass(frozen=True, config=STRICT)
class RandomParameters:
    """A random control."""

    size_of: str
    """The split whose size counts."""

    keep: Keep
    """Rows to keep: a count (an integer), or a fraction of the size of `size_of` (in [0.0, 1.0])."""

    seed: NonNegativeInt
    """Seed of the draw."""


@dataclass(frozen=True, config=STRICT)
class MatchedParameters:
    """A control that matches the composition of a split: as many random rows of each class or style."""

    size_of: str
    """The split whose composition counts."""

    match: Literal["class", "style"]
    """What is matched."""

    seed: NonNegativeInt
    """Seed of the draw."""


@dataclass(frozen=True, config=STRICT)
class PruneParameters:
    """Splits by rule and name; a name is unique over all rules."""

    # A Python name has no dash.
    imagenet_like: Annotated[dict[Name, ImagenetLikeParameters], Field(alias="imagenet-like")]
    """No row closer to a query than the reference is, plus the threshold."""

    dissimilar: dict[Name, SimilarityRankParameters]
    """Keep the rows most similar to the benchmarks; prune the dissimilar."""

    similar: dict[Name, SimilarityRankParameters]
    """Keep the rows least similar to the benchmarks; prune the similar."""

    random: dict[Name, RandomParameters]
    """Random controls."""

    matched: dict[Name, MatchedParameters]
    """Controls that match the composition of a split."""

    def rules(self) -> dict[str, dict[str, Any]]:
        """Return the splits by the name of their rule in the params file."""
        return {
            "imagenet-like": dict(self.imagenet_like),
            "dissimilar": dict(self.dissimilar),
            "similar": dict(self.similar),
            "random": dict(self.random),
            "matched": dict(self.matched),
        }
