"""Few-shot classification in closed form: ridge regression on centred features (after big_vision's `fewshot_lsr`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.data.benchmarks import Benchmark


@dataclass(frozen=True)
class Probe:
    """One linear score a class.

    Attributes:
        centre: mean feature, float64 [dim].
        weights: float64 [dim, classes].
        bias: float64 [classes].
    """

    centre: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def scores(self, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score queries, fp32 [queries, dim]: float64 [queries, classes]."""
        scores: NDArray[np.float64] = (queries.astype(np.float64) - self.centre) @ self.weights + self.bias
        return scores


def fit_probe(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, ridge: float) -> Probe:
    """Fit one linear score a class on labelled features by ridge regression.

    Targets are 1 for the class and -1 for the others; features are centred, the bias is the mean target. The penalty is
    `ridge` times the mean squared norm of a centred feature. Float64 throughout.
    """
    wide = features.astype(np.float64)
    centre = wide.mean(axis=0)
    wide = wide - centre
    targets = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    bias = targets.mean(axis=0)
    penalty = ridge * max(float((wide**2).sum(axis=1).mean()), np.finfo(np.float64).tiny)
    images, dim = wide.shape
    # Of two equal forms the one with fewer equations.
    if images < dim:
        weights = wide.T @ np.linalg.solve(wide @ wide.T + penalty * np.eye(images), targets - bias)
    else:
        weights = np.linalg.solve(wide.T @ wide + penalty * np.eye(dim), wide.T @ (targets - bias))
    return Probe(centre, weights, bias)


def benchmark_scores(
    scores: NDArray[np.float64], reference_classes: tuple[tuple[int, ...], ...]
) -> NDArray[np.float64]:
    """Turn scores over reference classes [images, reference classes] into scores over a benchmark's: the best that it maps to."""
    return np.stack([scores[:, list(indices)].max(axis=1) for indices in reference_classes], axis=1)


def map_classes(benchmark: Benchmark, reference: tuple[str, ...]) -> tuple[tuple[int, ...], ...] | None:
    """Give each benchmark class the reference classes that it stands for: those given, else the one of equal name.

    None where a class has none, or where equal names do not tell which: a name stands twice in the benchmark's list, or in
    the reference's. Then few-shot is refused for the benchmark.

    Raises:
        SimgapError: an index is outside the reference's classes.
    """
    given = benchmark.reference_classes
    for index in (index for entry in given or () for index in entry):
        if index >= len(reference):
            raise SimgapError(
                f"{benchmark.folder / 'reference_classes.json'}: class {index} is outside the reference's "
                f"{len(reference)} classes"
            )
    if given is not None:
        return given if all(given) else None
    names = benchmark.classnames
    if any(reference.count(name) != 1 or names.count(name) != 1 for name in names):
        return None
    return tuple((reference.index(name),) for name in names)
