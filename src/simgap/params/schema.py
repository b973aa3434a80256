"""The whole params file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Name, SetName, unique
from simgap.params.compare import CompareParameters
from simgap.params.deduplicate import DeduplicateParameters
from simgap.params.draw import DrawParameters
from simgap.params.embed import EmbedderParameters, EmbedParameters
from simgap.params.evaluate import EvaluateParameters
from simgap.params.ground_truth import GroundTruthParameters
from simgap.params.leaks import LeakParameters
from simgap.params.prune import PruneParameters
from simgap.params.resources import Limits, Resources
from simgap.params.sets import (
    BenchmarksParameters,
    CopyParameters,
    ManifestParameters,
    PoolParameters,
    ReferenceParameters,
)
from simgap.params.similarity import SimilarityParameters
from simgap.params.train import TrainParameters


def _has_nine_digits(threshold: float) -> float:
    # Metrics record nine digits.
    if float(f"{threshold:.9g}") != threshold:
        raise ValueError("it must have at most nine significant digits")
    return threshold


@dataclass(frozen=True, config=STRICT)
class RepeatsParameters:
    """Block `repeats`."""

    seeds: Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(unique)]
    """Every split is trained once with each of these seeds."""


@dataclass(frozen=True, config=STRICT)
class Params:
    """A whole params file."""

    threshold: Annotated[float, Field(ge=-2, le=2), AfterValidator(_has_nine_digits)]
    """Slack of the imagenet-like rule, as a difference of cosines; 0 is the paper's."""

    draw: dict[SetName, DrawParameters]
    """Toy worlds to draw, by name; {} if you bring data."""

    copy: dict[SetName, CopyParameters]
    """Data to copy into data/worlds/<name>."""

    manifest: dict[SetName, ManifestParameters]
    """Shards that stay in an object store, listed into data/worlds/<name>."""

    pool: PoolParameters
    """The pool."""

    reference: ReferenceParameters
    """The reference."""

    benchmarks: BenchmarksParameters
    """The benchmarks."""

    embedder: EmbedderParameters
    """Where the embedder comes from."""

    embed: EmbedParameters
    """How sets are embedded."""

    similarity: SimilarityParameters
    """What the similarity stage stores."""

    deduplicate: DeduplicateParameters
    """How near-duplicates are removed."""

    prune: PruneParameters
    """Splits by rule and name."""

    ground_truth: dict[Name, GroundTruthParameters]
    """Pools with annotated samples, to score embedder, deduplication and pruning; {} if there are none."""

    leaks: LeakParameters
    """When a test image counts as copied."""

    train: TrainParameters
    """How a model is trained."""

    runs: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """The splits to train; an entry may override keys of `train`."""

    repeats: RepeatsParameters
    """Seeds."""

    evaluate: EvaluateParameters
    """How a model is evaluated."""

    compare: CompareParameters
    """How splits are compared."""

    limits: Limits
    """When a stage fails instead of going on."""

    resources: Resources
    """How the work is done; nothing here changes a result."""
