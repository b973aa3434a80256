"""Define the block `train`, the parameters of training CLIP models."""

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
    """Whether samples_seen or epochs decides the length of the training. The other of these two keys is not used."""

    samples_seen: Count
    """Number of samples in the whole training, including repeats. An incomplete batch at the end is left out."""

    epochs: PositiveFloat
    """Number of passes over the training data, which are the split and, if it is added, the reference."""

    batch_size: Count
    """Number of samples in a step, over all processes. The contrastive loss compares all of these samples."""

    micro_batch_size: Count | None
    """Number of samples in a forward pass. With null, each process computes its whole share of the batch in one pass. Several
    micro-batches need the memory of one micro-batch, but features are computed twice. Batch norms use one micro-batch."""

    learning_rate: PositiveFloat
    """Largest learning rate, between linear warm-up and cosine decay."""

    weight_decay: NonNegativeFloat
    """Weight decay of AdamW."""

    beta1: BelowOne
    """Decay rate of AdamW's first moment."""

    beta2: BelowOne
    """Decay rate of AdamW's second moment."""

    epsilon: PositiveFloat
    """Term that AdamW adds to the denominator for numerical stability."""

    warmup_fraction: BelowOne
    """Share of the steps with linear warm-up."""

    crop_scale: Annotated[float, Field(gt=0, le=1)]
    """Smallest share of an image's area that the random crop keeps."""

    precision: Literal["fp32", "bf16"]
    """Precision of the forward pass: fp32, or autocast to bf16."""

    threads: Count
    """Number of CPU threads that compute in a training process. The last bits of the weights depend on this number."""

    processes: Count
    """Number of processes that train together on this machine. With 1, the stage trains in its own process. With more, the stage
    starts the processes with torchrun. If torchrun started the stage, this number is not used. The number changes results only by
    rounding, unless the model has batch norms."""

    readers: Count
    """Number of streams that read the shards. The order of the samples depends on this number. Choose a multiple of processes
    times resources.train.workers, so that each worker reads shards of its own."""

    grad_checkpointing: bool
    """Whether the backward pass computes activations again, which saves memory."""

    compile: bool
    """Whether torch.compile compiles the model."""

    shuffle_buffer: Count
    """Number of encoded samples in the shuffle buffer of each reader. Memory grows with this number."""

    @model_validator(mode="after")
    def _batches_fit(self) -> TrainParameters:
        if self.budget == "samples_seen" and self.samples_seen < self.batch_size:
            raise across_fields(
                f"samples_seen is {self.samples_seen}; it must be at least batch_size ({self.batch_size})"
            )
        multiple = self.processes * (self.micro_batch_size or 1)
        if self.batch_size % multiple:
            raise across_fields(
                f"batch_size is {self.batch_size}; it must be a multiple of processes times micro_batch_size, {multiple}"
            )
        return self
