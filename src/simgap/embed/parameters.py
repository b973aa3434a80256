"""Parameters of the embedder and of embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simgap.errors import SimgapError

SOURCES = ("train", "pretrained", "directory")


@dataclass(frozen=True)
class EmbedderParameters:
    """Where the embedder comes from.

    Attributes:
        source: `train` on the pool, fetch a `pretrained` open_clip model, or copy a local `directory`.
        model: `train`: path of an open_clip JSON config or a model name; `pretrained`: a model name; else null.
        pretrained: `pretrained`: the open_clip tag; else null.
        directory: `directory`: path of an open_clip local directory; else null.
        seed: seed of the training.
        train: keys of `train` that differ for the embedder.
    """

    source: str
    model: str | None
    pretrained: str | None
    directory: str | None
    seed: int
    train: dict[str, Any]

    def check(self) -> None:
        """Raise SimgapError where the source is unknown or lacks what it needs."""
        if self.source not in SOURCES:
            raise SimgapError(f"embedder.source: {self.source!r} is unknown; choose from {', '.join(SOURCES)}")
        needs = {"train": ("model",), "pretrained": ("model", "pretrained"), "directory": ("directory",)}
        for field in needs[self.source]:
            if getattr(self, field) is None:
                raise SimgapError(f"embedder.{field}: is null; source {self.source!r} needs it")


@dataclass(frozen=True)
class EmbedParameters:
    """How sets are embedded.

    Attributes:
        batch_size: images of every forward pass; the last one is padded to it.
        decoders: threads that decode and preprocess; more than one pays where images are large.
        shards_per_part: shards whose rows make one part of the embeddings.
        drop_limit: largest share of samples that may be dropped, in [0, 1].
    """

    batch_size: int
    decoders: int
    shards_per_part: int
    drop_limit: float

    def check(self) -> None:
        """Raise SimgapError where a value is out of range."""
        for field in ("batch_size", "decoders", "shards_per_part"):
            if getattr(self, field) < 1:
                raise SimgapError(f"embed.{field}: {getattr(self, field)} is out of range; it should be at least 1")
        if not 0 <= self.drop_limit <= 1:
            raise SimgapError(f"embed.drop_limit: {self.drop_limit} is out of range; it should be in [0, 1]")
