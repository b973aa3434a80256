"""Block `train`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count, across_fields

BelowOne = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, config=STRICT)
class TrainParameters:
    """How a model is trained."""

    model: str
    """Path of an open_clip JSON config (`*.json`), or the name of an open_clip model."""

    budget: Literal["samples_seen", "epochs"]
    """Which of the next two ends the training."""

    samples_seen: Count
    """Samples seen in total, repeats included. An incomplete batch at the end is not seen."""

    epochs: PositiveFloat
    """Passes over the split and the reference rows."""

    batch_size: Count
    """Samples of a step over all processes: the batch that the contrastive loss sees."""

    micro_batch_size: Count | None
    """Samples that pass through the model together; null: the whole share of a process. If a share has several micro-batches,
    features are computed twice, in the memory of one micro-batch. Batch norms see one micro-batch."""

    learning_rate: PositiveFloat
    """Peak of the linear warm-up and cosine decay."""

    weight_decay: NonNegativeFloat
    """Of AdamW."""

    beta1: BelowOne
    """Of AdamW."""

    beta2: BelowOne
    """Of AdamW."""

    epsilon: PositiveFloat
    """Of AdamW."""

    warmup_fraction: BelowOne
    """Share of the steps with linear warm-up."""

    crop_scale: Annotated[float, Field(gt=0, le=1)]
    """Smallest share of an image's area that the random crop keeps."""

    precision: Literal["fp32", "bf16"]
    """fp32, or autocast to bf16."""

    threads: Count
    """Threads of the training process's own arithmetic on a CPU. The last bits of the weights depend on it."""

    processes: Count
    """Processes that train together on this machine, started by torchrun; 1 trains in the stage's own process. If
    torchrun started the stage, this value is ignored. Results differ by rounding only, unless the model has batch norms."""

    readers: Count
    """Streams to which the shards are distributed; the order of samples depends on it. Choose a multiple of processes times
    resources.train.workers, so that each worker reads shards of its own."""

    grad_checkpointing: bool
    """Recompute activations in the backward pass to save memory."""

    compile: bool
    """Train the model that torch.compile returns."""

    shuffle_buffer: Count
    """Encoded samples held for shuffling, over the shards of a reader."""

    @model_validator(mode="after")
    def _batches_fit(self) -> TrainParameters:
        if self.budget == "samples_seen" and self.samples_seen < self.batch_size:
            raise across_fields(
                f"samples_seen is {self.samples_seen}; it must be at least batch_size ({self.batch_size})"
            )
        multiple = self.processes * (self.micro_batch_size or 1)
        if self.batch_size % multiple:
            raise across_fields(
                f"batch_size is {self.batch_size}; it must be a multiple of {multiple} (processes times micro_batch_size)"
            )
        return self
