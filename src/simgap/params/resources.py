"""Define the blocks `resources` and `limits`, the parameters that never change a result.

If the user changes a value in these blocks, DVC reruns no stage, because no stage depends on the blocks.
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
    """Resources of every training, including the training of the embedder."""

    workers: NonNegativeInt
    """Number of processes that decode images for each training process. With 0, the training process decodes the images."""

    checkpoint_steps: Count
    """Number of steps between two checkpoints."""


@dataclass(frozen=True, config=STRICT)
class Resources:
    """Where and how fast stages run. These parameters never change a result."""

    executor: Literal["local", "ray"]
    """Where embedding, similarity and deduplication compute their parts. local: in the process of the stage. ray: in a Ray
    cluster."""

    ray_address: Annotated[str, AfterValidator(_is_ray_address)]
    """HOST:PORT of the Ray cluster's head. With auto, the environment variable RAY_ADDRESS decides. Without that variable, simgap
    uses the cluster to which this machine belongs."""

    engine: Literal["auto", "cpu", "gpu", "faiss"]
    """Implementation that computes similarities. All implementations return the same bits. With auto, simgap chooses one."""

    block_rows: Count
    """Number of rows that deduplication compares at a time. A larger number needs more memory and may be faster."""

    decoders: Count
    """Number of threads that decode and preprocess images, in embedding and evaluation. Large images need several threads."""

    train: TrainResources
    """Resources of every training, including the training of the embedder."""

    def part_executor(self) -> Executor:
        """Return the executor that the params choose for the parts of a stage."""
        return Executor(self.executor, self.ray_address)


@dataclass(frozen=True, config=STRICT)
class Limits:
    """Limits above which a stage fails. A changed limit applies only to stages that run afterwards."""

    drop_limit: Share
    """Largest share of samples in a set that may be dropped. The same limit applies to the share of damaged shards."""
