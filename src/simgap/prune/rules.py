"""The pruning rules, on similarity columns alone: each gives bool [pool rows], True for a row that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.errors import SimgapError

JOINS = ("max", "mean")


def imagenet_like(
    full: NDArray[np.bool_], margins: Sequence[NDArray[np.float32]], threshold: float
) -> NDArray[np.bool_]:
    """Keep the rows whose stored margin exceeds the threshold for no benchmark (paper, section 4; threshold 0 is the paper's).

    A row is pruned by strictly larger margins only, and there is no limit on how many rows a query prunes.

    Args:
        full: the deduplicated pool, bool [pool rows].
        margins: of each benchmark, fp32 [pool rows].
        threshold: the slack, in cosine.
    """
    keep = full.copy()
    for margin in margins:
        keep &= ~(margin.astype(np.float64) > threshold)
    return keep


def join_similarities(best: Sequence[NDArray[np.float32]], join: str) -> NDArray[np.float64]:
    """Join the best similarities to several benchmarks to one value a row: their `max` or `mean`, float64 [pool rows]."""
    joined = best[0].astype(np.float64)
    for column in best[1:]:
        joined = np.maximum(joined, column) if join == "max" else joined + column
    return joined / len(best) if join == "mean" else joined


def by_similarity(
    full: NDArray[np.bool_], similarity: NDArray[np.float64], keep: int, *, most_similar: bool
) -> NDArray[np.bool_]:
    """Keep exactly `keep` rows of full: the most similar ones (dissimilar-pruned) or the least similar (similar-pruned).

    Ties go to the lower row.
    """
    rows = np.flatnonzero(full)
    key = -similarity[rows] if most_similar else similarity[rows]
    result = np.zeros(len(full), np.bool_)
    if keep == 0:
        return result
    bound = np.partition(key, keep - 1)[keep - 1]
    below = rows[key < bound]
    result[below] = True
    result[rows[key == bound][: keep - len(below)]] = True
    return result


def random(full: NDArray[np.bool_], keep: int, seed: int) -> NDArray[np.bool_]:
    """Keep exactly `keep` rows of full, drawn without replacement; the draw depends on the seed."""
    result = np.zeros(len(full), np.bool_)
    result[np.random.default_rng(seed).choice(np.flatnonzero(full), keep, replace=False)] = True
    return result


def rows_to_keep(keep: Any, of: int, available: int, where: str) -> int:
    """Resolve `keep` to a number of rows: an integer is a count, a float in [0, 1] a fraction of `of`, rounded down.

    Raises:
        SimgapError: it is neither, or more than the `available` rows.
    """
    if (
        isinstance(keep, bool)
        or not isinstance(keep, int | float)
        or keep < 0
        or (isinstance(keep, float) and keep > 1)
    ):
        raise SimgapError(f"{where}: {keep!r} should be a count of rows (an integer) or a fraction in [0.0, 1.0]")
    # As written, not as stored in binary: 0.29 of 100 is 29.
    rows = int(Fraction(str(keep)) * of) if isinstance(keep, float) else keep
    if rows > available:
        raise SimgapError(f"{where}: {keep} is more than the {available} rows of the deduplicated pool")
    return rows
