"""Define the top level of a params file."""

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
    # Metrics store a threshold with nine significant digits. If the parameter had more digits, it would differ from the
    # stored threshold.
    if float(f"{threshold:.9g}") != threshold:
        raise ValueError("it must have at most nine significant digits")
    return threshold


@dataclass(frozen=True, config=STRICT)
class RepeatsParameters:
    """How often every split is trained."""

    seeds: Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(unique)]
    """Seeds of the trainings. Every split is trained once with each seed."""


@dataclass(frozen=True, config=STRICT)
class Params:
    """The content of a params file."""

    threshold: Annotated[float, Field(ge=-2, le=2), AfterValidator(_has_nine_digits)]
    """Threshold of the imagenet-like rule, a difference of two cosines. The rule keeps a row if similarity(row, query) -
    similarity(query, reference) <= threshold for every query. similarity(query, reference) is the largest similarity of the query
    to a reference row. The paper uses 0."""

    draw: dict[SetName, DrawParameters]
    """Toy worlds to generate, by name. It is {} if you bring your own data."""

    copy: dict[SetName, CopyParameters]
    """Data to copy into data/worlds/<name>, by name."""

    manifest: dict[SetName, ManifestParameters]
    """Shards that stay in an object store, by name. simgap writes a list of the shards to data/worlds/<name>."""

    pool: PoolParameters
    """The large set of image-text pairs that the study prunes."""

    reference: ReferenceParameters
    """The curated training set to which the imagenet-like rule compares the pool (in the paper, ImageNet-Train)."""

    benchmarks: BenchmarksParameters
    """The labelled test sets."""

    embedder: EmbedderParameters
    """The CLIP model whose image embeddings define similarity."""

    embed: EmbedParameters
    """How the embedder embeds the pool, the reference and the benchmarks."""

    similarity: SimilarityParameters
    """The nearest neighbours that the similarity stage stores."""

    deduplicate: DeduplicateParameters
    """How near-duplicates are removed from the pool."""

    prune: PruneParameters
    """The splits of the pool, grouped by the rule that makes them."""

    ground_truth: dict[Name, GroundTruthParameters]
    """Pools with annotated samples, on which embedder, deduplication and pruning are scored. It is {} without such pools."""

    leaks: LeakParameters
    """The rule by which simgap reports a benchmark image as copied."""

    train: TrainParameters
    """How a model is trained on a split."""

    runs: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """The splits on which models are trained. The entry of a split may override keys of `train`."""

    repeats: RepeatsParameters
    """How often every split is trained."""

    evaluate: EvaluateParameters
    """How a model is evaluated."""

    compare: CompareParameters
    """How splits are compared."""

    limits: Limits
    """Limits above which a stage fails."""

    resources: Resources
    """Where and how fast stages run. These parameters never change a result."""
