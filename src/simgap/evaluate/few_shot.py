"""Classify images from few examples, by ridge regression on centred features.

The solution has a closed form, as in `fewshot_lsr` of big_vision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.data.benchmarks import Benchmark


@dataclass(frozen=True)
class Probe:
    """A linear classifier with one score for each class.

    Attributes:
        centre: Mean feature of the training images, float64 [dim]. The classifier subtracts this mean from every query.
        weights: Weights of each class, float64 [dim, classes].
        bias: Bias of each class, float64 [classes].
    """

    centre: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def scores(self, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute the class scores of queries.

        Args:
            queries: Features of the queries, fp32 [queries, dim].

        Returns:
            The scores, float64 [queries, classes].
        """
        scores: NDArray[np.float64] = (queries.astype(np.float64) - self.centre) @ self.weights + self.bias
        return scores


def fit_probe(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, ridge: float) -> Probe:
    """Fit a linear classifier to labelled features by ridge regression, in float64.

    The target of a class is 1 for images of the class and -1 for all other images. The function subtracts the mean feature from
    every feature. The bias of a class is then the mean of its targets.

    Args:
        features: Training features, fp32 [images, dim].
        labels: The class of each image, int64 [images].
        classes: Number of classes.
        ridge: The penalty, relative to the mean squared norm of the centred features.
    """
    wide = features.astype(np.float64)
    centre = wide.mean(axis=0)
    wide = wide - centre
    targets = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    bias = targets.mean(axis=0)
    penalty = ridge * max(float((wide**2).sum(axis=1).mean()), np.finfo(np.float64).tiny)
    images, dim = wide.shape
    # The primal and the dual form have the same solution. The form with fewer equations is faster.
    if images < dim:
        weights = wide.T @ np.linalg.solve(wide @ wide.T + penalty * np.eye(images), targets - bias)
    else:
        weights = np.linalg.solve(wide.T @ wide + penalty * np.eye(dim), wide.T @ (targets - bias))
    return Probe(centre, weights, bias)


def benchmark_scores(
    scores: NDArray[np.float64], reference_classes: tuple[tuple[int, ...], ...]
) -> NDArray[np.float64]:
    """Convert scores of reference classes to scores of benchmark classes.

    Args:
        scores: Scores, float64 [images, reference classes].
        reference_classes: The indices of the reference classes for each benchmark class, from `map_classes`.

    Returns:
        The largest score among the reference classes of each benchmark class, float64 [images, benchmark classes].
    """
    return np.stack([scores[:, list(indices)].max(axis=1) for indices in reference_classes], axis=1)


def map_classes(benchmark: Benchmark, reference: tuple[str, ...]) -> tuple[tuple[int, ...], ...] | None:
    """Return the reference classes that correspond to each benchmark class.

    The benchmark's file `reference_classes.json` lists these classes. Without this file, a benchmark class and a reference
    class correspond if their names are equal.

    Args:
        benchmark: The benchmark.
        reference: The class names of the reference.

    Returns:
        The indices of the reference classes for each benchmark class, or None if few-shot classification is not possible. It is
        not possible if a benchmark class has no reference class. It is also not possible if classes are matched by name, and a
        name occurs twice in the benchmark or in the reference.

    Raises:
        SimgapError: `reference_classes.json` contains a class index that the reference does not have.
    """
    given = benchmark.reference_classes
    for index in (index for entry in given or () for index in entry):
        if index >= len(reference):
            raise SimgapError(
                f"{benchmark.folder / 'reference_classes.json'}: class {index} does not exist; an index must be at most "
                f"{len(reference) - 1}, because the reference has {len(reference)} classes"
            )
    if given is not None:
        return given if all(given) else None
    names = benchmark.classnames
    if any(reference.count(name) != 1 or names.count(name) != 1 for name in names):
        return None
    return tuple((reference.index(name),) for name in names)
