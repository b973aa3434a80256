"""Preprocessed images to a model's vectors, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from simgap.clip.model import Model
from simgap.core.errors import SimgapError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse fp16 where there is no GPU.

    Raises:
        SimgapError: the precision is fp16 and there is no GPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise SimgapError("embed.precision: fp16 needs a GPU and there is none; choose from fp32, bf16")


@torch.inference_mode()
def encode(
    model: Model, images: Sequence[torch.Tensor], batch_size: int, precision: str = "fp32"
) -> NDArray[np.float32]:
    """Embed preprocessed images, float [3, height, width], from 1 to `batch_size`, to raw vectors fp32 [images, dim].

    The batch is padded to `batch_size`, so that an image's vector does not depend on how many stand beside it. It computes
    where the model is, on which the memory is that of one batch.

    Args:
        precision: fp32, or bf16 or fp16 for autocast.
    """
    # A GPU copies from pinned memory without waiting.
    batch = torch.empty((batch_size, *images[0].shape), pin_memory=model.device.type == "cuda")
    torch.stack(list(images), out=batch[: len(images)])
    batch[len(images) :] = 0
    with torch.autocast(model.device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
        vectors = model.clip.encode_image(batch.to(model.device, non_blocking=True))
    return vectors.float().cpu().numpy()[: len(images)]  # type: ignore[no-any-return]
