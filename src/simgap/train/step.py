"""The gradient of the contrastive loss over a global batch, from micro-batches of one or many processes."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import open_clip
import torch

from simgap.train.process import Process

Batch = tuple[torch.Tensor, torch.Tensor]


class ContrastiveStep:
    """Leaves the gradient of a global batch's loss in the model's parameters.

    With several micro-batches the features of all are computed without gradient first; then each is computed again with
    gradient, in its place among the others' (open_clip's `accum_freq`, GradCache), so that the loss sees the whole batch.
    With several processes each has the loss of its own images and texts against those of all (`local_loss`), and
    gradients flow back through the gathering (`gather_with_grad`): the mean over processes is the batch's own gradient.

    Args:
        clip: the model, wrapped for several processes where there are.
        precision: `fp32`, or `bf16` for autocast.
    """

    def __init__(self, clip: torch.nn.Module, process: Process, precision: str) -> None:
        self.clip, self.process, self.precision = clip, process, precision
        many = process.world_size > 1
        if many:
            # Of open_clip's own gathering, in every step's first call: nothing that its user could mend.
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
        """Keep gradients of a backward pass to this process: they are exchanged once, with the last."""
        return self.clip.no_sync() if self.process.world_size > 1 else nullcontext()  # type: ignore[operator]

    def backward(self, batches: list[Batch]) -> torch.Tensor:
        """Add the gradient of the loss over the micro-batches, and give the loss."""
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
                # Every pass sees the whole batch's loss: its derivative by the scale counts once.
                loss = self.loss(images, texts, scale if number == last else scale.detach())
                loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
