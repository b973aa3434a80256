"""Parameters of training."""

from __future__ import annotations

from dataclasses import dataclass

from simgap.errors import SimgapError

BUDGETS = ("samples_seen", "epochs")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainParameters:
    """How a model is trained.

    Attributes:
        model: path of an open_clip JSON config (`*.json`), or the name of an open_clip model.
        budget: which of the next two ends the training: `samples_seen` or `epochs`.
        samples_seen: samples seen in all, repeats counted.
        epochs: passes over the split and the reference rows.
        batch_size: samples of a step.
        learning_rate: peak of warm-up and cosine decay.
        weight_decay, beta1, beta2, epsilon: AdamW's.
        warmup_fraction: share of the steps with linear warm-up.
        crop_scale: smallest share of an image's area that the random crop keeps, in (0, 1].
        precision: `fp32`, or `bf16` autocast.
        workers: processes that decode, each of which reads all shards; 0 decodes in the training process. Changes no result.
        threads: of the training process's own arithmetic on a CPU. The bits of a result depend on it, so it is no default of
            the machine's; with one worker beside it, one thread was the fastest on two cores.
        shuffle_buffer: encoded samples held for shuffling, over all shards that were read.
        checkpoint_steps: steps between checkpoints.
    """

    model: str
    budget: str
    samples_seen: int
    epochs: float
    batch_size: int
    learning_rate: float
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    warmup_fraction: float
    crop_scale: float
    precision: str
    workers: int
    threads: int
    shuffle_buffer: int
    checkpoint_steps: int

    def check(self) -> None:
        """Raise SimgapError where a value is unknown or out of range."""
        for field, choices in (("budget", BUDGETS), ("precision", PRECISIONS)):
            if getattr(self, field) not in choices:
                raise SimgapError(
                    f"train.{field}: {getattr(self, field)!r} is unknown; choose from {', '.join(choices)}"
                )
        for field in ("samples_seen", "batch_size", "threads", "shuffle_buffer", "checkpoint_steps"):
            if getattr(self, field) < 1:
                raise SimgapError(f"train.{field}: {getattr(self, field)} is out of range; it should be at least 1")
        for field in ("epochs", "learning_rate", "epsilon"):
            if getattr(self, field) <= 0:
                raise SimgapError(f"train.{field}: {getattr(self, field)} is out of range; it should be above 0")
        if self.workers < 0 or self.weight_decay < 0:
            raise SimgapError("train.workers and train.weight_decay: should not be below 0")
        for field in ("beta1", "beta2"):
            if not 0 <= getattr(self, field) < 1:
                raise SimgapError(f"train.{field}: {getattr(self, field)} is out of range; it should be in [0, 1)")
        if not 0 <= self.warmup_fraction < 1:
            raise SimgapError(f"train.warmup_fraction: {self.warmup_fraction} is out of range; it should be in [0, 1)")
        if not 0 < self.crop_scale <= 1:
            raise SimgapError(f"train.crop_scale: {self.crop_scale} is out of range; it should be in (0, 1]")
