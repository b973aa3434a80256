"""Compute the gradient of the contrastive loss over a global batch.

One or several processes share the global batch. Each process divides its share into micro-batches.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import open_clip
import torch

from simgap.train.process import Process

Batch = tuple[torch.Tensor, torch.Tensor]


class ContrastiveStep:
    """Computes the gradient of the contrastive loss over a global batch.

    With several micro-batches, the step first computes all features without gradient and caches these features. Then the step
    computes the features of each micro-batch again, with gradient. It combines these features with the cached features of the
    other micro-batches. The loss therefore sees the whole batch. The method is open_clip's `accum_freq`, also known as
    GradCache.

    With several processes, each process compares its own images with the texts of all processes, and its own texts with the
    images of all processes (open_clip's `local_loss`). Gradients flow back through the exchange of features
    (`gather_with_grad`). The mean gradient over the processes is the gradient of the global batch.
    """

    def __init__(self, clip: torch.nn.Module, process: Process, precision: str) -> None:
        """Prepare the loss.

        Args:
            clip: The model. With several processes, DistributedDataParallel wraps it.
            process: The process that computes this step.
            precision: `fp32`, or `bf16` for autocast.
        """
        self.clip, self.process, self.precision = clip, process, precision
        many = process.world_size > 1
        if many:
            # This warning is hidden, because open_clip calls the deprecated function and the user cannot change that.
            warnings.filterwarnings("ignore", ".*all_gather is deprecated", FutureWarning, r"open_clip\.loss")
        self.loss = open_clip.ClipLoss(
            local_loss=many, gather_with_grad=many, rank=process.rank, world_size=process.world_size
        )

    def _features(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        images, texts = (part.to(self.process.device, non_blocking=True) for part in batch)
        with torch.autocast(self.process.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            image, text, scale = self.clip(images, texts)
        return image.float(), text.float(), scale

    def _without_exchange(self) -> AbstractContextManager[Any]:
        """Return a context in which processes exchange no gradients.

        Only the last backward pass averages gradients over processes.
        """
        return self.clip.no_sync() if self.process.world_size > 1 else nullcontext()  # type: ignore[operator]

    def backward(self, batches: list[Batch]) -> torch.Tensor:
        """Add the gradient of the loss to the `grad` of the model's parameters.

        Args:
            batches: The micro-batches of this process for one step.

        Returns:
            The loss of this process, a scalar tensor without gradient.
        """
        if len(batches) == 1:
            loss: torch.Tensor = self.loss(*self._features(batches[0]))
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        with torch.no_grad():
            cached = [self._features(batch)[:2] for batch in batches]
        last = len(batches) - 1
        for number, batch in enumerate(batches):
            with nullcontext() if number == last else self._without_exchange():
                image, text, scale = self._features(batch)
                images, texts = (
                    torch.cat([*(c[kind] for c in cached[:number]), own, *(c[kind] for c in cached[number + 1 :])])
                    for kind, own in enumerate((image, text))
                )
                # Every pass computes the loss of the whole batch, but the gradient of the logit scale must be added only once.
                # Only the last pass therefore computes this gradient.
                loss = self.loss(images, texts, scale if number == last else scale.detach())
                loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
