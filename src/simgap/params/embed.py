"""Define the blocks `embedder` and `embed`, the parameters of the embedder and of embedding images."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, model_validator
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count, across_fields
from simgap.params.train import TrainParameters


@dataclass(frozen=True, config=STRICT)
class PretrainedParameters:
    """An open_clip model with pretrained weights."""

    model: str
    """Name of the model. `open_clip.list_pretrained()` lists the names."""

    tag: str
    """Tag of the pretrained weights. `open_clip.list_pretrained()` lists the tags of each model."""


@dataclass(frozen=True, config=STRICT)
class EmbedderParameters:
    """The source of the embedder. Exactly one of train, pretrained and directory must be set, and the others must be null."""

    train: TrainParameters | None
    """Train the embedder on the pool with these parameters. They do not depend on the block `train`."""

    pretrained: PretrainedParameters | None
    """Download the pretrained weights of this model."""

    directory: str | None
    """Copy the embedder from this open_clip local directory."""

    seed: NonNegativeInt
    """Seed of the embedder's training. Other sources do not use it."""

    @model_validator(mode="after")
    def _has_one_source(self) -> EmbedderParameters:
        given = [name for name in ("train", "pretrained", "directory") if getattr(self, name) is not None]
        if len(given) != 1:
            raise across_fields(
                f"{' and '.join(given) or 'none'} is set; exactly one of train, pretrained and directory must be set"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class EmbedParameters:
    """How the embedder embeds the pool, the reference and the benchmarks."""

    batch_size: Count
    """Number of images in a forward pass. The last batch is padded to this number."""

    precision: Literal["fp32", "bf16", "fp16"]
    """Precision of the forward pass: fp32, or autocast to bf16 or fp16. fp16 needs a GPU."""

    shards_per_part: Count
    """Number of shards that are embedded as one part. An interrupted stage keeps its finished parts."""
