"""Find the benchmark images that have a copy in the pool, by a threshold that is calibrated where copies are marked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.data.marks import Annotation
from simgap.params.leaks import LeakParameters
from simgap.store.embeddings import Embeddings

COPIES = ("exact", "near")


@dataclass(frozen=True)
class MarkedCopies:
    """What a pool's marks say of copies.

    Attributes:
        similarity: of every marked copy to what it repeats, by kind (`exact`, `near`): fp32 [copies].
        marked: by benchmark: the queries with a marked copy, bool [queries].
    """

    similarity: dict[str, NDArray[np.float32]]
    marked: dict[str, NDArray[np.bool_]]


def marked_copies(
    marks: Mapping[tuple[str, str], Annotation], embeddings: Path, benchmarks: Sequence[str]
) -> MarkedCopies:
    """Measure the marked copies of pool, reference and benchmark images; one whose original was dropped is left out.

    Raises:
        SimgapError: a pool row has no marks.
    """
    pool = Embeddings(embeddings / "pool")
    table = pool.metadata(["shard", "key"])
    copies: dict[str, list[tuple[int, Annotation]]] = defaultdict(list)
    for row, place in enumerate(zip(table.column("shard").to_pylist(), table.column("key").to_pylist(), strict=True)):
        if place not in marks:
            raise SimgapError(
                f"{place[0]}: {place[1]} has no json with marks; give leaks.threshold for pools without them"
            )
        mark = marks[place]
        if mark.planted in COPIES and mark.source in ("pool", "reference", *benchmarks):
            copies[str(mark.source)].append((row, mark))
    similarity: dict[str, list[NDArray[np.float32]]] = {kind: [] for kind in COPIES}
    marked = {name: np.zeros(Embeddings(embeddings / name).rows, np.bool_) for name in benchmarks}
    for source, found in copies.items():
        originals = Embeddings(embeddings / source)
        row_of = {key: row for row, key in enumerate(originals.metadata(["key"]).column("key").to_pylist())}
        known = [(row, row_of[mark.key], mark.planted) for row, mark in found if mark.key in row_of]
        for kind in COPIES:
            rows = np.array([row for row, _, how in known if how == kind], np.int64)
            repeated = np.array([original for _, original, how in known if how == kind], np.int64)
            order = np.argsort(repeated, kind="stable")
            vectors = np.empty((len(rows), pool.dim), np.float64)
            vectors[order] = originals.take(repeated[order])
            exact = np.einsum("cd,cd->c", pool.take(rows).astype(np.float64), vectors)
            similarity[kind].append(exact.astype(np.float32))
            if source in marked:
                marked[source][repeated] = True
    return MarkedCopies(
        {kind: np.concatenate([np.empty(0, np.float32), *parts]) for kind, parts in similarity.items()}, marked
    )


def calibrated(not_copied: NDArray[np.float32], false_positives: float) -> float:
    """Give the lowest threshold that at most this share of the similarities of queries without a copy exceeds."""
    allowed = int(false_positives * len(not_copied))
    return float(np.sort(not_copied)[::-1][allowed])


def find_leaks(
    parameters: LeakParameters, pool_similarity: Mapping[str, NDArray[np.float32]], known: MarkedCopies | None
) -> dict[str, Any]:
    """Give the threshold, how well it tells copies from others where some are marked, and how many queries are copied.

    A copy may also be in the pool that nobody marked: `false_positive_share` is at most what it says.

    Args:
        pool_similarity: by benchmark, s_q of the pool: fp32 [queries].
        known: marks, or None for a pool without.

    Raises:
        SimgapError: there is neither a threshold nor a mark to calibrate it on.
    """
    metrics: dict[str, Any] = {"calibrated": parameters.threshold is None}
    threshold = parameters.threshold
    if known is not None:
        without = np.concatenate([similarity[~known.marked[name]] for name, similarity in pool_similarity.items()])
        copies = np.concatenate(list(known.similarity.values()))
        if threshold is None and len(without) and len(copies):
            threshold = calibrated(without, parameters.false_positives)
    if threshold is None:
        raise SimgapError(
            "leaks.threshold: is null, though no sample of the pool is marked as a copy, or every test image as copied; "
            "give a similarity"
        )
    metrics["threshold"] = threshold
    if known is not None:
        kinds = {"": copies, **{f"/{kind}": values for kind, values in known.similarity.items()}}
        for kind, values in kinds.items():
            metrics[f"marked_copies{kind}"] = len(values)
            if len(values):
                metrics[f"recall{kind}"] = float((values > threshold).mean())
        metrics["queries_without_marked_copy"] = len(without)
        if len(without):
            metrics["false_positive_share"] = float((without > threshold).mean())
    for name, similarity in pool_similarity.items():
        copied = similarity > threshold
        metrics |= {f"{name}/queries": len(copied), f"{name}/copied": int(copied.sum())}
        metrics[f"{name}/copied_share"] = float(copied.mean())
        if known is not None:
            metrics[f"{name}/marked"] = int(known.marked[name].sum())
    return metrics
