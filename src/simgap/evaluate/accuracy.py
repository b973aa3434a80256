"""Compute predictions and accuracies from class scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# TOP is the number of predictions for top-5 accuracy. As in CLIP_benchmark, top-5 accuracy is undefined for a benchmark with
# fewer than five classes.
TOP = 5


def ranking(scores: NDArray[np.float64], depth: int) -> NDArray[np.int64]:
    """Return the best classes of each image.

    Args:
        scores: Finite class scores, [images, classes].
        depth: Number of classes to return, at most the number of classes.

    Returns:
        Class indices, best first, int64 [images, depth]. If scores are equal, the class with the smaller index comes first.
    """
    left = scores.copy()
    best = np.empty((len(scores), depth), np.int64)
    # The loop finds the largest remaining score `depth` times. For a small depth, this is faster than sorting all classes.
    for place in range(depth):
        best[:, place] = left.argmax(axis=1)
        np.put_along_axis(left, best[:, place, None], -np.inf, axis=1)
    return best


def mean_per_class_recall(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Return the mean recall over classes, in [0, 1]. Classes that do not occur in `labels` are skipped."""
    return float(np.mean([(predictions[labels == label] == label).mean() for label in np.unique(labels)]))


def class_table(
    labels: NDArray[np.int64], best: NDArray[np.int64], classnames: tuple[str, ...]
) -> dict[str, NDArray[Any] | list[Any]]:
    """Compute the metrics of each class.

    Args:
        labels: The class of each image, int64 [images].
        best: The predicted classes of each image, best first, int64 [images, at most 5].
        classnames: The name of each class.

    Returns:
        Columns by name. Each column has one value for each class:

        - `class` and `label`: the name and the index of the class.
        - `images`: the number of images of the class.
        - `predicted`: the number of images for which the class is the best prediction.
        - `top1`: the recall, in [0, 1].
        - `precision`: the share of correct predictions among `predicted`.
        - `top5`: the share of images of the class that have the class among their five best predictions. This column is missing
          if there are fewer than five classes.

        A share is None if its denominator is zero.
    """
    count = len(classnames)
    images, predicted = (np.bincount(values, minlength=count) for values in (labels, best[:, 0]))
    correct = np.bincount(labels[best[:, 0] == labels], minlength=count)
    columns: dict[str, NDArray[Any] | list[Any]] = {
        "class": list(classnames),
        "label": np.arange(count, dtype=np.int32),
        "images": images.astype(np.int32),
        "predicted": predicted.astype(np.int32),
        "top1": _shares(correct, images),
        "precision": _shares(correct, predicted),
    }
    if count >= TOP:
        among_five = np.bincount(labels[(best == labels[:, None]).any(axis=1)], minlength=count)
        columns["top5"] = _shares(among_five, images)
    return columns


def _shares(parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> list[float | None]:
    return [float(part / whole) if whole else None for part, whole in zip(parts, wholes, strict=True)]
