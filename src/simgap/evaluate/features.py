"""Unit-norm features of labelled images and of class names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from simgap.batches import batched
from simgap.data.shards import Accounting, Sample
from simgap.embed.decode import decoded
from simgap.embed.encode import encode
from simgap.embed.model import Model


@dataclass(frozen=True)
class LabelledFeatures:
    """Image features fp32 [images, dim] of unit norm, and labels int64 [images]."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def image_features(
    model: Model, samples: Iterable[Sample], batch_size: int, decoders: int, accounting: Accounting
) -> LabelledFeatures:
    """Embed labelled samples in their order; images that cannot be decoded are counted in `accounting`.

    Every batch is padded to `batch_size`, so that an image's features do not depend on how many stand beside it.

    Args:
        decoders: threads that decode; results do not depend on them.
    """
    features: list[NDArray[np.float32]] = [np.empty((0, model.dim), np.float32)]
    labels: list[int] = []
    for group in batched(decoded(samples, model, decoders, batch_size, accounting), batch_size):
        raw = torch.from_numpy(encode(model, [image for _, image in group], batch_size))
        features.append(torch.nn.functional.normalize(raw, dim=-1).numpy())
        labels += [int(sample.label or 0) for sample, _ in group]
    return LabelledFeatures(np.concatenate(features), np.array(labels, np.int64))


@torch.inference_mode()
def class_features(model: Model, classnames: tuple[str, ...], templates: tuple[str, ...]) -> NDArray[np.float32]:
    """Embed each class as the mean of its prompts' unit-norm features, scaled to unit norm: fp32 [classes, dim] (CLIP)."""
    rows = []
    for name in classnames:
        prompts = model.tokenizer([template.replace("{c}", name) for template in templates]).to(model.device)
        mean = model.clip.encode_text(prompts, normalize=True).mean(dim=0)
        rows.append((mean / mean.norm()).cpu().numpy())
    return np.stack(rows)
