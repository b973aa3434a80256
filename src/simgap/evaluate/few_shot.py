"""Few-shot classification in closed form: ridge regression on centred features (after big_vision's `fewshot_lsr`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simgap.errors import SimgapError


def shot_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Give each image's place in the draw of its class, int64 [images]: the first k of a class are its k shots."""
    place = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        place[np.random.default_rng([seed, int(label)]).permutation(of_class)] = np.arange(len(of_class))
    return place


def choose_shots(
    labels: NDArray[np.int64], classnames: tuple[str, ...], shots: int, place: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Choose the first `shots` images of each class by their `place`, ascending int64 [classes * shots].

    Fewer shots are a part of more.

    Raises:
        SimgapError: a class has fewer images.
    """
    chosen = []
    for label, name in enumerate(classnames):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) < shots:
            raise SimgapError(
                f"evaluate.few_shot.shots: {shots} is more than the {len(of_class)} readable reference images of class {name!r}"
            )
        chosen.append(of_class[np.argsort(place[of_class])[:shots]])
    return np.sort(np.concatenate(chosen))


def ridge_scores(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, ridge: float, queries: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Fit one linear score a class on labelled features and score queries: float64 [queries, classes].

    Targets are 1 for the class and -1 for the others; features are centred, the bias is the mean target. The penalty is
    `ridge` times the mean squared norm of a centred feature. Float64 throughout.
    """
    wide = features.astype(np.float64)
    centre = wide.mean(axis=0)
    wide = wide - centre
    targets = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    bias = targets.mean(axis=0)
    penalty = ridge * max(float((wide**2).sum(axis=1).mean()), np.finfo(np.float64).tiny)
    # The dual form: one equation an image, of which there are fewer than dimensions.
    weights = wide.T @ np.linalg.solve(wide @ wide.T + penalty * np.eye(len(wide)), targets - bias)
    scores: NDArray[np.float64] = (queries.astype(np.float64) - centre) @ weights + bias
    return scores


def benchmark_scores(
    scores: NDArray[np.float64], reference_classes: tuple[tuple[int, ...], ...]
) -> NDArray[np.float64]:
    """Turn scores over reference classes [images, reference classes] into scores over a benchmark's: the best that it maps to."""
    return np.stack([scores[:, list(indices)].max(axis=1) for indices in reference_classes], axis=1)


def map_classes(
    classnames: tuple[str, ...], reference: tuple[str, ...], given: tuple[tuple[int, ...], ...] | None
) -> tuple[tuple[int, ...], ...] | None:
    """Give each benchmark class the reference classes that it stands for: those given, else the one of equal name.

    None where a class has none: then few-shot is refused for the benchmark.

    Raises:
        SimgapError: an index is outside the reference's classes.
    """
    for index in (index for entry in given or () for index in entry):
        if index >= len(reference):
            raise SimgapError(
                f"reference_classes.json: class {index} is outside the reference's {len(reference)} classes"
            )
    mapped = given or tuple(
        tuple(index for index, other in enumerate(reference) if other == name) for name in classnames
    )
    return mapped if all(mapped) else None
