"""Compute unit-norm features of labelled images and of class names."""

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
    """The features and labels of images.

    Attributes:
        features: Features with unit norm, fp32 [images, dim].
        labels: The class of each image, int64 [images].
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def _check_features(features: NDArray[np.float32], kind: str, where: Path) -> None:
    """Raise an error if a feature is not finite or is zero.

    The class scores of such a feature would not be comparable with other scores.

    Args:
        features: The features to check, fp32 [n, dim].
        kind: `image` or `class`, for the error message.
        where: The folder of the images or of the benchmark. Error messages begin with it.

    Raises:
        SimgapError: A feature is not finite or is zero.
    """
    good = np.isfinite(features).all(axis=1) & features.any(axis=1)
    if not good.all():
        raise SimgapError(
            f"{where}: {(~good).sum()} of {len(features)} {kind} features are zero or not finite; train the model again"
        )


def _label(sample: Sample) -> int:
    if sample.label is None:
        raise ValueError(f"{sample.shard}: sample {sample.key!r} has no label")
    return sample.label


def image_features(
    model: Model, samples: Iterable[Sample], batch_size: int, decoders: int, accounting: Accounting, where: Path
) -> LabelledFeatures:
    """Compute the features of labelled images, in the order of the samples.

    Images that cannot be decoded are dropped. The function pads every batch to `batch_size`. The features of an image therefore
    do not depend on the number of images in the batch.

    Args:
        model: The CLIP model.
        samples: Samples with labels.
        batch_size: Number of images in a forward pass.
        decoders: Number of threads that decode images. This number does not change the features.
        accounting: Counts of samples. The function adds the number of images that it drops.
        where: Folder of the images. Error messages begin with it.

    Raises:
        SimgapError: The features of an image are not finite or are zero.
    """
    features: list[NDArray[np.float32]] = [np.empty((0, model.dim), np.float32)]
    labels: list[int] = []
    images = decode_samples(samples, model.preprocess, decoders, batch_size, accounting)
    for group in batched(images, batch_size):
        raw = torch.from_numpy(encode(model, [image for _, image in group], batch_size))
        unit = torch.nn.functional.normalize(raw, dim=-1).numpy()
        _check_features(unit, "image", where)
        features.append(unit)
        labels += [_label(sample) for sample, _ in group]
    return LabelledFeatures(np.concatenate(features), np.array(labels, np.int64))


@torch.inference_mode()
def class_features(
    model: Model, classnames: tuple[str, ...], templates: tuple[str, ...], where: Path
) -> NDArray[np.float32]:
    """Compute the text features of classes.

    As in CLIP, each class has one prompt for each template. The text features of these prompts have unit norm. The feature of
    the class is the mean of these text features, scaled to unit norm.

    Args:
        model: The CLIP model.
        classnames: The name of each class.
        templates: Prompts with `{c}` in place of the class name.
        where: Folder of the benchmark. Error messages begin with it.

    Returns:
        One feature for each class, fp32 [classes, dim].

    Raises:
        SimgapError: The features of a class are not finite or are zero.
    """
    rows = []
    for name in classnames:
        prompts = model.tokenizer([template.replace("{c}", name) for template in templates]).to(model.device)
        mean = model.clip.encode_text(prompts, normalize=True).mean(dim=0)
        rows.append((mean / mean.norm()).cpu().numpy())
    features = np.stack(rows)
    _check_features(features, "class", where)
    return features
