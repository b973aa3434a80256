"""Find benchmark images that have a copy in the pool.

A benchmark image counts as copied if its similarity to the nearest pool row exceeds a threshold. The threshold is a
parameter, or annotations of copies calibrate it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.data.annotations import Annotation
from simgap.params.leaks import LeakParameters
from simgap.store.embeddings import Embeddings

COPIES = ("exact", "near")


@dataclass(frozen=True)
class AnnotatedCopies:
    """The copies that the annotations of a pool declare.

    Attributes:
        similarity: Similarity of each copy to its original. There is one array fp32 [copies] for each kind of copy,
            `exact` and `near`.
        copied: Whether each query has an annotated copy. There is one array bool [queries] for each benchmark.
    """

    similarity: dict[str, NDArray[np.float32]]
    copied: dict[str, NDArray[np.bool_]]


def annotated_copies(
    annotations: Mapping[tuple[str, str], Annotation], embeddings: Path, benchmarks: Sequence[str]
) -> AnnotatedCopies:
    """Compute the similarity of each annotated copy to its original.

    The original is in the pool, the reference or a benchmark. Copies are skipped if their original has no embedding.

    Args:
        annotations: Annotation of each pool sample, by the shard and the key of the sample.
        embeddings: Folder of the embeddings of all sets.
        benchmarks: Names of the benchmarks of the study.

    Returns:
        The similarities of the copies, and the queries that have a copy.

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
    """Return the similarity threshold above which a benchmark image counts as copied.

    The result is the lowest threshold with an allowed number of false positives. A false positive is a query without a
    copy whose similarity exceeds the threshold.

    Args:
        not_copied: Similarity of each query without a copy to its nearest pool row, fp32 [queries]. It must not be
            empty.
        false_positives: Largest allowed share of false positives among these queries, in [0, 1).
    """
    allowed = int(false_positives * len(not_copied))
    return float(np.sort(not_copied)[::-1][allowed])


def find_leaks(
    parameters: LeakParameters, pool_similarity: Mapping[str, NDArray[np.float32]], known: AnnotatedCopies | None
) -> dict[str, Any]:
    """Count the queries that have a copy in the pool, and measure how many annotated copies the threshold finds.

    The pool may contain copies without an annotation. The metric `false_positive_share` counts them as false positives,
    so the true share is not larger than the metric. In the names of metrics, `marked` means annotated.

    Args:
        parameters: Threshold, or share of false positives that calibrates the threshold.
        pool_similarity: Similarity of each query to its nearest pool row. There is one array fp32 [queries] for each
            benchmark.
        known: Annotated copies. None for a pool without annotations.

    Returns:
        The value of each metric by name.

    Raises:
        SimgapError: The parameters have no threshold, and annotations cannot calibrate one.
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
            "has an annotated copy. Set leaks.threshold to a cosine similarity, for example 0.95"
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
