"""From scores to predictions and accuracies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ranking(scores: NDArray[np.float64], depth: int) -> NDArray[np.int64]:
    """Give the `depth` best classes of each image, best first: int64 [images, depth]; ties go to the lower class."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :depth]


def mean_per_class_recall(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Average the recall of the classes that occur, in [0, 1]."""
    return float(np.mean([(predictions[labels == label] == label).mean() for label in np.unique(labels)]))
