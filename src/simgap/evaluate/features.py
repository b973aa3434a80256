"""Unit-norm features of labelled images and of class names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from simgap.clip.encode import encode
from simgap.clip.model import Model
from simgap.core.batches import batched
from simgap.core.errors import SimgapError
from simgap.data.decode import decode_samples
from simgap.data.shards import Accounting, Sample


@dataclass(frozen=True)
class LabelledFeatures:
    """Image features fp32 [images, dim] of unit norm, and labels int64 [images]."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def _check_features(features: NDArray[np.float32], what: str, where: Path) -> None:
    """Refuse features, fp32 [n, dim], that would compare with nothing: every score of theirs is a tie."""
    good = np.isfinite(features).all(axis=1) & features.any(axis=1)
    if not good.all():
        raise SimgapError(
            f"{where}: the model gives {what} that are not finite or zero ({(~good).sum()} of {len(features)}); "
            "train it anew"
        )


def _label(sample: Sample) -> int:
    if sample.label is None:
        raise ValueError(f"{sample.shard}: {sample.key!r} has no label")
    return sample.label


def image_features(
    model: Model, samples: Iterable[Sample], batch_size: int, decoders: int, accounting: Accounting, where: Path
) -> LabelledFeatures:
    """Embed labelled samples in their order; images that cannot be decoded are counted in `accounting`.

    Every batch is padded to `batch_size`, so that an image's features do not depend on how many stand beside it.

    Args:
        decoders: threads that decode; results do not depend on them.
        where: folder of the images, for errors.

    Raises:
        SimgapError: a feature is not finite, or zero.
    """
    features: list[NDArray[np.float32]] = [np.empty((0, model.dim), np.float32)]
    labels: list[int] = []
    images = decode_samples(samples, model.preprocess, decoders, batch_size, accounting)
    for group in batched(images, batch_size):
        raw = torch.from_numpy(encode(model, [image for _, image in group], batch_size))
        unit = torch.nn.functional.normalize(raw, dim=-1).numpy()
        _check_features(unit, "image features", where)
        features.append(unit)
        labels += [_label(sample) for sample, _ in group]
    return LabelledFeatures(np.concatenate(features), np.array(labels, np.int64))


@torch.inference_mode()
def class_features(
    model: Model, classnames: tuple[str, ...], templates: tuple[str, ...], where: Path
) -> NDArray[np.float32]:
    """Embed each class as the mean of its prompts' unit-norm features, scaled to unit norm: fp32 [classes, dim] (CLIP).

    Args:
        where: folder of the benchmark, for errors.

    Raises:
        SimgapError: a feature is not finite, or zero.
    """
    rows = []
    for name in classnames:
        prompts = model.tokenizer([template.replace("{c}", name) for template in templates]).to(model.device)
        mean = model.clip.encode_text(prompts, normalize=True).mean(dim=0)
        rows.append((mean / mean.norm()).cpu().numpy())
    features = np.stack(rows)
    _check_features(features, "class features", where)
    return features
