"""Define the block `prune`, which lists the splits of the pool by pruning rule."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Name, unique

Benchmarks = Annotated[list[str], Field(min_length=1), AfterValidator(unique)]


def _is_count_or_fraction(keep: int | float) -> int | float:
    if keep < 0 or (isinstance(keep, float) and keep > 1):
        raise ValueError("it must be a count (an integer) or a fraction in [0.0, 1.0]")
    return keep


Keep = Annotated[int | float, AfterValidator(_is_count_or_fraction)]


@dataclass(frozen=True, config=STRICT)
class ImagenetLikeParameters:
    """A split of the rows with similarity(row, query) - similarity(query, reference) <= threshold for every query.

    similarity(query, reference) is the largest similarity of the query to a reference row.
    """

    benchmarks: Benchmarks
    """Benchmarks whose queries the rule uses."""


@dataclass(frozen=True, config=STRICT)
class SimilarityRankParameters:
    """A split of the rows that are most similar, or least similar, to benchmarks."""

    benchmarks: Benchmarks
    """Benchmarks whose queries the rule uses."""

    join: Literal["max", "mean"]
    """A row has one similarity for each benchmark. The rows are ranked by the maximum or by the mean of these similarities."""

    keep: Keep
    """Rows to keep: a count (an integer), or a fraction of the rows of full (a number in [0.0, 1.0])."""


@dataclass(frozen=True, config=STRICT)
class RandomParameters:
    """A control split of random rows."""

    size_of: str
    """Name of another split. A fraction in `keep` is relative to the size of that split."""

    keep: Keep
    """Rows to keep: a count (an integer), or a fraction of the size of the split `size_of` (a number in [0.0, 1.0])."""

    seed: NonNegativeInt
    """Seed that decides which rows are chosen."""


@dataclass(frozen=True, config=STRICT)
class MatchedParameters:
    """A control split of random rows, with as many rows of each class or style as another split has."""

    size_of: str
    """Name of the other split."""

    match: Literal["class", "style"]
    """Annotation of the samples to match. For each class, or for each style, both splits have the same number of rows."""

    seed: NonNegativeInt
    """Seed that decides which rows are chosen."""


@dataclass(frozen=True, config=STRICT)
class PruneParameters:
    """Splits, grouped by the rule that makes them. No two splits may have the same name."""

    # The field needs an alias, because a Python name cannot contain a dash as the key `imagenet-like` does.
    imagenet_like: Annotated[dict[Name, ImagenetLikeParameters], Field(alias="imagenet-like")]
    """Splits of the rows with similarity(row, query) - similarity(query, reference) <= threshold for every query."""

    dissimilar: dict[Name, SimilarityRankParameters]
    """Splits of the rows that are most similar to benchmarks. The rule prunes dissimilar rows."""

    similar: dict[Name, SimilarityRankParameters]
    """Splits of the rows that are least similar to benchmarks. The rule prunes similar rows."""

    random: dict[Name, RandomParameters]
    """Control splits of random rows."""

    matched: dict[Name, MatchedParameters]
    """Control splits of random rows, with as many rows of each class or style as another split has."""

    def rules(self) -> dict[str, dict[str, Any]]:
        """Return the splits of each rule, by the key of the rule in the params file.

        The splits of a rule are a mapping from the name of each split to the parameters of the split.
        """
        return {
            "imagenet-like": dict(self.imagenet_like),
            "dissimilar": dict(self.dissimilar),
            "similar": dict(self.similar),
            "random": dict(self.random),
            "matched": dict(self.matched),
        }
