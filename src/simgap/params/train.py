"""Parameters of training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from simgap.core.errors import SimgapError

BUDGETS = ("samples_seen", "epochs")
PRECISIONS = ("fp32", "bf16")
COUNTS = (
    "samples_seen",
    "batch_size",
    "threads",
    "processes",
    "readers",
    "shuffle_buffer",
    "checkpoint_steps",
)
WITHOUT_EFFECT = ("workers", "processes", "checkpoint_steps")


@dataclass(frozen=True)
class TrainParameters:
    """How a model is trained.

    Attributes:
        model: path of an open_clip JSON config (`*.json`), or the name of an open_clip model.
        budget: which of the next two ends the training: `samples_seen` or `epochs`.
        samples_seen: samples seen in all, repeats counted; what is less than a whole batch at the end is not seen.
        epochs: passes over the split and the reference rows.
        batch_size: samples of a step, over all processes: the batch that the contrastive loss sees.
        micro_batch_size: samples that go through the model together; null: a process's whole share of the batch. Where several
            make a share, features of all are computed twice, in the memory of one. Batch norms see a micro-batch alone.
        learning_rate: peak of warm-up and cosine decay.
        weight_decay, beta1, beta2, epsilon: AdamW's.
        warmup_fraction: share of the steps with linear warm-up.
        crop_scale: smallest share of an image's area that the random crop keeps, in (0, 1].
        precision: `fp32`, or `bf16` autocast.
        workers: processes that decode for each that trains; 0 decodes in the training process. Changes no result.
        threads: of the training process's own arithmetic on a CPU. The bits of a result depend on it, so it is no default of
            the machine's; with one worker beside it, one thread was the fastest on two cores.
        processes: that train together on this machine, started by torchrun; 1 trains in the stage's own process. A stage that
            torchrun started, on several machines too, joins the others whatever this says. Changes no result beyond rounding,
            but where a model has batch norms.
        readers: streams among which the shards are dealt; the order of samples depends on it. Best a multiple of processes
            times workers, so that each worker reads shards of its own.
        grad_checkpointing: compute activations anew in the backward pass, for memory.
        compile: train the model as torch.compile makes it.
        shuffle_buffer: encoded samples held for shuffling, over the shards of a reader.
        checkpoint_steps: steps between checkpoints.
    """

    model: str
    budget: str
    samples_seen: int
    epochs: float
    batch_size: int
    micro_batch_size: int | None
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
    processes: int
    readers: int
    grad_checkpointing: bool
    compile: bool
    shuffle_buffer: int
    checkpoint_steps: int

    def check(self) -> None:
        """Raise SimgapError where a value is unknown or out of range."""
        for field, choices in (("budget", BUDGETS), ("precision", PRECISIONS)):
            if getattr(self, field) not in choices:
                raise SimgapError(
                    f"train.{field}: {getattr(self, field)!r} is unknown; choose from {', '.join(choices)}"
                )
        for field in COUNTS:
            if getattr(self, field) < 1:
                raise SimgapError(f"train.{field}: {getattr(self, field)} is out of range; it should be at least 1")
        if self.budget == "samples_seen" and self.samples_seen < self.batch_size:
            raise SimgapError(
                f"train.samples_seen: {self.samples_seen} is less than one batch (train.batch_size: {self.batch_size})"
            )
        if self.micro_batch_size is not None and (self.micro_batch_size < 1 or self.batch_size % self.micro_batch_size):
            raise SimgapError(
                f"train.micro_batch_size: {self.micro_batch_size} should be null or divide train.batch_size ({self.batch_size})"
            )
        self.micro_batches(self.processes)
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

    def micro_batches(self, processes: int) -> tuple[int, int]:
        """Give how many micro-batches of a step are one process's, and the samples of each.

        Raises:
            SimgapError: the batch cannot be dealt to the processes in micro-batches.
        """
        size = self.micro_batch_size or self.batch_size // processes
        if size == 0 or self.batch_size % (size * processes):
            raise SimgapError(
                f"train.batch_size: {self.batch_size} cannot be dealt to {processes} processes in micro-batches of "
                f"{size or 1}; make it a multiple"
            )
        return self.batch_size // (size * processes), size

    def identity(self) -> dict[str, Any]:
        """Give all that a training's state depends on: what changes only how it is worked at is left out."""
        return {name: value for name, value in asdict(self).items() if name not in WITHOUT_EFFECT}
