"""Encode preprocessed images with a CLIP model, one batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from simgap.clip.model import Model
from simgap.core.errors import SimgapError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(precision: str, device: torch.device) -> None:
    """Check that the device supports the precision, because fp16 needs a GPU.

    Raises:
        SimgapError: The precision is fp16 and the device is a CPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise SimgapError("embed.precision is fp16, but this machine has no GPU; choose from fp32, bf16")


@torch.inference_mode()
def encode(
    model: Model, images: Sequence[torch.Tensor], batch_size: int, precision: str = "fp32"
) -> NDArray[np.float32]:
    """Encode a batch of preprocessed images on the model's device.

    The function pads the batch to `batch_size` with zeros. The vector of an image therefore does not depend on the number of
    images in the batch. The device needs memory for one batch.

    Args:
        model: The CLIP model.
        images: The images of the batch, from 1 to `batch_size`. Each is a float tensor [3, height, width].
        batch_size: The number of images in the forward pass, including the padding.
        precision: `fp32`, or `bf16` or `fp16` for autocast.

    Returns:
        One vector for each image, fp32 [images, dim]. The vectors are not normalised.
    """
    # If the device is a GPU, the batch is in pinned memory. A GPU can copy from pinned memory while the CPU continues to work.
    batch = torch.empty((batch_size, *images[0].shape), pin_memory=model.device.type == "cuda")
    torch.stack(list(images), out=batch[: len(images)])
    batch[len(images) :] = 0
    with torch.autocast(model.device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
        vectors = model.clip.encode_image(batch.to(model.device, non_blocking=True))
    return vectors.float().cpu().numpy()[: len(images)]  # type: ignore[no-any-return]
