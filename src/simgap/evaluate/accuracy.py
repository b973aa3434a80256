"""From scores to predictions and accuracies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of the classes ranked; where a benchmark has fewer, top-5 accuracy is undefined (CLIP_benchmark).
TOP = 5


def ranking(scores: NDArray[np.float64], depth: int) -> NDArray[np.int64]:
    """Give the `depth` best classes of each image, best first: int64 [images, depth]; ties go to the lower class.

    Args:
        scores: finite, [images, classes], of at least `depth` classes.
    """
    left = scores.copy()
    best = np.empty((len(scores), depth), np.int64)
    # A few passes for the largest cost less than sorting all classes.
    for place in range(depth):
        best[:, place] = left.argmax(axis=1)
        np.put_along_axis(left, best[:, place, None], -np.inf, axis=1)
    return best


def mean_per_class_recall(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Average the recall of the classes that occur, in [0, 1]."""
    return float(np.mean([(predictions[labels == label] == label).mean() for label in np.unique(labels)]))


def class_table(
    labels: NDArray[np.int64], best: NDArray[np.int64], classnames: tuple[str, ...]
) -> dict[str, NDArray[Any] | list[Any]]:
    """Give a column for each figure of a class, one row a class.

    `class`, `label`, `images` of it and images `predicted` to be of it; `top1`, the share of its images that are predicted
    right, which is its recall, and `top5`; `precision`, the share of right ones among those predicted to be of it. A share
    of no images is None; `top5` is left out where there are fewer than five classes.

    Args:
        labels: int64 [images].
        best: classes of each image, best first, int64 [images, at most 5].
    """
    count = len(classnames)
    images, predicted = (np.bincount(values, minlength=count) for values in (labels, best[:, 0]))
    right = np.bincount(labels[best[:, 0] == labels], minlength=count)
    columns: dict[str, NDArray[Any] | list[Any]] = {
        "class": list(classnames),
        "label": np.arange(count, dtype=np.int32),
        "images": images.astype(np.int32),
        "predicted": predicted.astype(np.int32),
        "top1": _shares(right, images),
        "precision": _shares(right, predicted),
    }
    if count >= TOP:
        among_five = np.bincount(labels[(best == labels[:, None]).any(axis=1)], minlength=count)
        columns["top5"] = _shares(among_five, images)
    return columns


def _shares(parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> list[float | None]:
    return [float(part / whole) if whole else None for part, whole in zip(parts, wholes, strict=True)]
