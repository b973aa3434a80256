"""Block `evaluate`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count, unique


@dataclass(frozen=True, config=STRICT)
class FewShotParameters:
    """Few-shot classification by ridge regression on image embeddings."""

    shots: Annotated[list[Count], AfterValidator(unique)]
    """Reference images a class; several numbers give several results, [] none."""

    draws: Count
    """How often the shots are drawn, for the spread."""

    ridge: PositiveFloat
    """The penalty, relative to the mean squared norm of a centred feature."""

    seed: NonNegativeInt
    """Decides which reference images are the shots of each draw: the same ones for every split and seed."""


@dataclass(frozen=True, config=STRICT)
class EvaluateParameters:
    """How a model is evaluated."""

    batch_size: Count
    """Images of every forward pass; the last one is padded to it."""

    few_shot: FewShotParameters
    """The few-shot protocol."""
