"""Blocks `embedder` and `embed`."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, model_validator
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count, across_fields
from simgap.params.train import TrainParameters


@dataclass(frozen=True, config=STRICT)
class PretrainedParameters:
    """An open_clip model and its weights, as `open_clip.list_pretrained()` names them."""

    model: str
    """Name of the model."""

    tag: str
    """Tag of the weights."""


@dataclass(frozen=True, config=STRICT)
class EmbedderParameters:
    """Where the embedder comes from: exactly one of train, pretrained and directory is not null."""

    train: TrainParameters | None
    """Train it on the pool with these parameters; they are independent of the block `train`."""

    pretrained: PretrainedParameters | None
    """Fetch it."""

    directory: str | None
    """Copy it from this open_clip local directory."""

    seed: NonNegativeInt
    """Seed of its training."""

    @model_validator(mode="after")
    def _has_one_source(self) -> EmbedderParameters:
        given = [name for name in ("train", "pretrained", "directory") if getattr(self, name) is not None]
        if len(given) != 1:
            raise across_fields(
                f"{' and '.join(given) or 'none'} is set; exactly one of train, pretrained, directory must be"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class EmbedParameters:
    """How sets are embedded."""

    batch_size: Count
    """Images of every forward pass; the last one is padded to it."""

    precision: Literal["fp32", "bf16", "fp16"]
    """Precision of the forward pass: fp32, or autocast to bf16 or fp16. fp16 needs a GPU."""

    shards_per_part: Count
    """Shards whose rows make one part of the embeddings."""
