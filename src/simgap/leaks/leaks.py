"""Find the benchmark images that have a copy in the pool, by a threshold that annotated copies can calibrate."""

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
class AnnotatedCopies:
    """The copies that the annotations of a pool name.

    Attributes:
        similarity: by kind (`exact`, `near`), the similarity of each copy to its original, fp32 [copies].
        copied: by benchmark, the queries with an annotated copy, bool [queries].
    """

    similarity: dict[str, NDArray[np.float32]]
    copied: dict[str, NDArray[np.bool_]]


def annotated_copies(
    annotations: Mapping[tuple[str, str], Annotation], embeddings: Path, benchmarks: Sequence[str]
) -> AnnotatedCopies:
    """Measure the annotated copies of pool, reference and benchmark images.

    A copy is left out if its original could not be embedded.

    Args:
        annotations: the annotation of each pool sample, by shard and key.
        embeddings: the folder of all sets' embeddings.
        benchmarks: the benchmarks of the study.

    Raises:
        SimgapError: A pool row has no annotation.
    """
    pool = Embeddings(embeddings / "pool")
    table = pool.metadata(["shard", "key"])
    copies: dict[str, list[tuple[int, Annotation]]] = defaultdict(list)
    for row, place in enumerate(zip(table.column("shard").to_pylist(), table.column("key").to_pylist(), strict=True)):
        if place not in annotations:
            raise SimgapError(
                f"{place[0]}: {place[1]} has no json with an annotation; set leaks.threshold for a pool without annotations"
            )
        annotation = annotations[place]
        if annotation.planted in COPIES and annotation.source in ("pool", "reference", *benchmarks):
            copies[str(annotation.source)].append((row, annotation))
    similarity: dict[str, list[NDArray[np.float32]]] = {kind: [] for kind in COPIES}
    copied = {name: np.zeros(Embeddings(embeddings / name).rows, np.bool_) for name in benchmarks}
    for source, found in copies.items():
        originals = Embeddings(embeddings / source)
        row_of = originals.rows_by_key()
        known = [(row, row_of[copy.key], copy.planted) for row, copy in found if copy.key in row_of]
        for kind in COPIES:
            rows = np.array([row for row, _, how in known if how == kind], np.int64)
            repeated = np.array([original for _, original, how in known if how == kind], np.int64)
            order = np.argsort(repeated, kind="stable")
            vectors = np.empty((len(rows), pool.dim), np.float64)
            vectors[order] = originals.take(repeated[order])
            exact = np.einsum("cd,cd->c", pool.take(rows).astype(np.float64), vectors)
            similarity[kind].append(exact.astype(np.float32))
            if source in copied:
                copied[source][repeated] = True
    return AnnotatedCopies(
        {kind: np.concatenate([np.empty(0, np.float32), *parts]) for kind, parts in similarity.items()}, copied
    )


def calibrate_threshold(not_copied: NDArray[np.float32], false_positives: float) -> float:
    """Return the lowest threshold with at most this share of false positives.

    Args:
        not_copied: the similarities to the pool of queries without a copy, fp32 [queries].
        false_positives: the largest share of them that may exceed the threshold, in [0, 1).
    """
    allowed = int(false_positives * len(not_copied))
    return float(np.sort(not_copied)[::-1][allowed])


def find_leaks(
    parameters: LeakParameters, pool_similarity: Mapping[str, NDArray[np.float32]], known: AnnotatedCopies | None
) -> dict[str, Any]:
    """Count the queries that have a copy in the pool, and measure how well the threshold finds annotated copies.

    The pool may hold copies without an annotation, so the true share of false positives is at most
    `false_positive_share`. The metrics call an annotated copy a marked copy.

    Args:
        parameters: the threshold, or the share of false positives that calibrates it.
        pool_similarity: by benchmark, s_q of the pool, fp32 [queries].
        known: the annotated copies; None for a pool without annotations.

    Returns:
        The metrics.

    Raises:
        SimgapError: There is no threshold, and no annotated copy to calibrate it on.
    """
    metrics: dict[str, Any] = {"calibrated": parameters.threshold is None}
    threshold = parameters.threshold
    if known is not None:
        without = np.concatenate([similarity[~known.copied[name]] for name, similarity in pool_similarity.items()])
        copies = np.concatenate(list(known.similarity.values()))
        if threshold is None and len(without) and len(copies):
            threshold = calibrate_threshold(without, parameters.false_positives)
    if threshold is None:
        raise SimgapError(
            "leaks.threshold is null, but it cannot be calibrated: no pool sample is annotated as a copy, or every test image "
            "has an annotated copy. Set it to a similarity"
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
            metrics[f"{name}/marked"] = int(known.copied[name].sum())
    return metrics
