"""Blocks `resources` and `limits`: settings that change no result.

Stages do not depend on these blocks, so a change reruns nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, NonNegativeInt
from pydantic.dataclasses import dataclass

from simgap.core.executor import RAY_ADDRESS, Executor
from simgap.params.block import STRICT, Count, Share


def _is_ray_address(address: str) -> str:
    if not RAY_ADDRESS.fullmatch(address):
        raise ValueError("it must be auto or HOST:PORT")
    return address


@dataclass(frozen=True, config=STRICT)
class TrainResources:
    """What training uses; the embedder's training too."""

    workers: NonNegativeInt
    """Processes that decode images for each process that trains; 0 decodes in the training process."""

    checkpoint_steps: Count
    """Steps between checkpoints."""


@dataclass(frozen=True, config=STRICT)
class Resources:
    """How the work is done. Nothing here changes a result."""

    executor: Literal["local", "ray"]
    """What runs the parts of embedding, similarity and deduplication: this process, or a Ray cluster."""

    ray_address: Annotated[str, AfterValidator(_is_ray_address)]
    """HOST:PORT of the Ray cluster's head; auto: the cluster that this machine belongs to, or that RAY_ADDRESS names."""

    engine: Literal["auto", "cpu", "gpu", "faiss"]
    """What computes similarities; all engines give the same bits."""

    block_rows: Count
    """Rows that deduplication compares at a time; changes memory and speed."""

    decoders: Count
    """Threads that decode and preprocess images, in embedding and evaluation. More than one helps if images are large."""

    train: TrainResources
    """What training uses."""

    def part_executor(self) -> Executor:
        """Return the executor of the parts of a stage."""
        return Executor(self.executor, self.ray_address)


@dataclass(frozen=True, config=STRICT)
class Limits:
    """When a stage fails instead of going on. A changed limit applies to stages that run afterwards."""

    drop_limit: Share
    """Largest share of a set's samples that may be dropped, and of its shards that may be damaged."""
