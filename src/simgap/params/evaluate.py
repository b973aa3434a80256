"""Parameters of evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from simgap.core.errors import SimgapError


@dataclass(frozen=True)
class FewShotParameters:
    """Few-shot classification by ridge regression on image embeddings.

    Attributes:
        shots: reference images a class; several numbers give several results, [] none.
        draws: how many times the shots are drawn, for the spread.
        ridge: the penalty, relative to the mean squared norm of a centred feature.
        seed: decides which reference images are the shots of each draw, the same ones for every split and seed.
    """

    shots: list[int]
    draws: int
    ridge: float
    seed: int


@dataclass(frozen=True)
class EvaluateParameters:
    """How a model is evaluated.

    Attributes:
        batch_size: images of every forward pass; the last one is padded to it.
        few_shot: the few-shot protocol.
    """

    batch_size: int
    few_shot: FewShotParameters

    def check(self) -> None:
        """Raise SimgapError where a value is out of range."""
        if self.batch_size < 1:
            raise SimgapError(f"evaluate.batch_size: {self.batch_size} is out of range; it should be at least 1")
        if any(shots < 1 for shots in self.few_shot.shots) or len(set(self.few_shot.shots)) != len(self.few_shot.shots):
            raise SimgapError(
                f"evaluate.few_shot.shots: {self.few_shot.shots} should be different numbers, each at least 1"
            )
        if self.few_shot.draws < 1:
            raise SimgapError(
                f"evaluate.few_shot.draws: {self.few_shot.draws} is out of range; it should be at least 1"
            )
        if self.few_shot.ridge <= 0:
            raise SimgapError(f"evaluate.few_shot.ridge: {self.few_shot.ridge} is out of range; it should be above 0")
