"""Define the block `evaluate`, the parameters of zero-shot and few-shot evaluation."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count, unique


@dataclass(frozen=True, config=STRICT)
class FewShotParameters:
    """Few-shot classification by ridge regression on image embeddings."""

    shots: Annotated[list[Count], AfterValidator(unique)]
    """Numbers of reference images for each class. Every number gives one result. [] turns few-shot classification off."""

    draws: Count
    """Number of random choices of the shots. The spread of a result is the standard deviation over these choices."""

    ridge: PositiveFloat
    """Penalty of the ridge regression, relative to the mean squared norm of the centred features."""

    seed: NonNegativeInt
    """Seed that decides which reference images are the shots. All splits and all training seeds use the same shots."""


@dataclass(frozen=True, config=STRICT)
class EvaluateParameters:
    """How a model is evaluated."""

    batch_size: Count
    """Number of images in a forward pass. The last batch is padded to this number."""

    few_shot: FewShotParameters
    """How few-shot classification is done."""
