"""Score the embedder, deduplication and pruning against the annotations of a pool."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.data.annotations import Annotation
from simgap.deduplicate.centroids import assign
from simgap.deduplicate.within_cluster import near_duplicates
from simgap.similarity.search.exact import exact_product
from simgap.store.embeddings import Embeddings
from simgap.store.split import KEEP_FILE, read_keep, read_split

BLOCK_ROWS = 2048
# The metric `domains_removed` lists the styles of which a split lost at least this share of the rows.
DOMAIN_REMOVED = 0.95


def rank_of_copies(
    pool: Embeddings, queries: NDArray[np.float16], copies: NDArray[np.int64], own: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count the pool rows that are more similar to each query than the copy of the query is.

    A row that is exactly as similar as the copy does not count. A count of 0 means that the copy has rank 1.

    Args:
        pool: Embeddings of the pool.
        queries: Embeddings of the queries, fp16 [queries, dim].
        copies: Pool row of the copy of each query, int64 [queries].
        own: Pool row of the query itself, int64 [queries]. This row does not count. The value is -1 if the query is not
            in the pool.

    Returns:
        The number of more similar rows for each query, int64 [queries].
    """
    wide = queries.astype(np.float64)
    order = np.argsort(copies)
    vectors = np.empty_like(queries)
    vectors[order] = pool.take(copies[order])
    to_copy = np.einsum("qd,qd->q", wide, vectors.astype(np.float64))
    nearer = np.zeros(len(queries), np.int64)
    for first, block in pool.blocks(BLOCK_ROWS):
        closer = exact_product(block, wide) > to_copy
        inside = (own >= first) & (own < first + len(block))
        closer[own[inside] - first, np.flatnonzero(inside)] = False
        nearer += closer.sum(axis=0)
    return nearer


def rank1_recall(
    annotations: Sequence[Annotation], pool: Embeddings, embeddings: Path, benchmarks: Sequence[str]
) -> dict[str, float]:
    """Compute the share of annotated copies that are the nearest pool row of their original.

    A copy counts only if its original is in the pool, the reference or `benchmarks`. The pool may also contain copies
    from other benchmarks. Copies are skipped if their original has no embedding.

    Args:
        annotations: Annotation of each pool row.
        pool: Embeddings of the pool.
        embeddings: Folder of the embeddings of all sets.
        benchmarks: Names of the benchmarks of the study.

    Returns:
        The value of each metric by name. There is one metric for each kind of copy, and one for exact and near copies
        together.
    """
    ranks: dict[str, list[int]] = defaultdict(list)
    by_source: dict[str, list[tuple[int, Annotation]]] = defaultdict(list)
    counted = {"pool", "reference", *benchmarks}
    for row, annotation in enumerate(annotations):
        if annotation.source is not None and annotation.source in counted:
            by_source[annotation.source].append((row, annotation))
    for source, planted in sorted(by_source.items()):
        originals = Embeddings(embeddings / source)
        rows = originals.rows_by_key()
        planted = [(row, annotation) for row, annotation in planted if annotation.key in rows]
        own = np.array([rows[str(annotation.key)] for _, annotation in planted], np.int64)
        nearer = rank_of_copies(
            pool,
            originals.read()[own],
            np.array([row for row, _ in planted], np.int64),
            own if source == "pool" else np.full(len(own), -1, np.int64),
        )
        for (_, annotation), rank in zip(planted, nearer, strict=True):
            ranks[str(annotation.planted)].append(int(rank))
    copies = ranks["exact"] + ranks["near"]
    result = {f"rank1_recall/{how}": float(np.mean([r == 0 for r in found])) for how, found in ranks.items() if found}
    return {**result, "rank1_recall/copies": float(np.mean([r == 0 for r in copies]))} if copies else result


def duplicate_groups(annotations: Sequence[Annotation], keys: Sequence[str]) -> NDArray[np.int64]:
    """Return the duplicate group of each pool row.

    A row and all its exact and near copies form one group.

    Args:
        annotations: Annotation of each pool row.
        keys: Key of each pool row.

    Returns:
        The number of the group of each row, int64 [pool rows].
    """
    group = np.arange(len(annotations), dtype=np.int64)
    rows = {key: row for row, key in enumerate(keys)}
    # Several rows may be copies of one image outside the pool. This mapping from each such image to its first copy puts
    # the copies into one group.
    outside: dict[tuple[str | None, str | None], int] = {}
    for row, annotation in enumerate(annotations):
        if annotation.planted in ("exact", "near"):
            if annotation.source == "pool" and annotation.key in rows:
                group[row] = rows[annotation.key]
            else:
                group[row] = outside.setdefault((annotation.source, annotation.key), row)
    return group


def score_deduplication(
    pool: Embeddings, group: NDArray[np.int64], centroids: NDArray[np.float16], eps: Sequence[float]
) -> dict[str, float]:
    """Compute the precision and recall of the deduplication rule for each eps.

    A row is a true duplicate if a row with a smaller number belongs to the same group. The pool may contain
    near-duplicates without an annotation. So the true precision may be higher than the computed precision.

    Args:
        pool: Embeddings of the pool.
        group: Duplicate group of each row, int64 [pool rows], see `duplicate_groups`.
        centroids: Centroids of the clusters, fp16 [clusters, dim].
        eps: Values of eps at which the rule is scored.

    Returns:
        The value of each metric by name. The precision is missing if no row is dropped. The recall is missing if there
        are no true duplicates.
    """
    order = np.argsort(group, kind="stable")
    first = np.r_[True, group[order][1:] != group[order][:-1]]
    true = np.ones(pool.rows, np.bool_)
    true[order[first]] = False
    with tempfile.TemporaryDirectory() as scratch:
        cluster = assign(pool, centroids, "auto", Path(scratch))
    result: dict[str, float] = {"deduplication/true_duplicates": int(true.sum())}
    for value in eps:
        with tempfile.TemporaryDirectory() as scratch:
            dropped = near_duplicates(pool, cluster, len(centroids), value, BLOCK_ROWS, Path(scratch))
        name = f"deduplication/eps_{value:g}"
        result[f"{name}/dropped"] = int(dropped.sum())
        if dropped.any():
            result[f"{name}/precision"] = float(true[dropped].mean())
        if true.any():
            result[f"{name}/recall"] = float(dropped[true].mean())
    return result


def pruned_shares(annotations: Sequence[Annotation], split: Path, rule_queries: dict[str, set[str]]) -> dict[str, Any]:
    """Compute the share of pool rows that are not in a split.

    The function computes one share for each style, one for each class, and one for each kind of copy of a benchmark
    image. Copies of queries that rules use count as `planted`. Copies of the other queries count as `planted_held_out`.
    For an imagenet-like split, the metric `domains_removed` lists the styles that lost at least 95% of their rows.

    Args:
        annotations: Annotation of each pool row.
        split: Folder of the split.
        rule_queries: Keys of the queries that rules use, by the name of the benchmark.

    Returns:
        The value of each metric by name.
    """
    info = read_split(split)
    keep = read_keep(split / KEEP_FILE, info.pool_rows)
    total: Counter[str] = Counter()
    pruned: Counter[str] = Counter()
    for row, annotation in enumerate(annotations):
        names = [f"style/{annotation.style}", f"class/{annotation.kind or 'none'}"]
        if annotation.planted and annotation.source in info.benchmarks:
            seen = annotation.key in rule_queries[annotation.source]
            names.append(f"{'planted' if seen else 'planted_held_out'}/{annotation.planted}")
        total.update(names)
        if not keep[row]:
            pruned.update(names)
    shares: dict[str, Any] = {
        f"{split.name}/pruned_share/{name}": pruned[name] / count for name, count in sorted(total.items())
    }
    if info.rule == "imagenet-like":
        removed = [
            name for name in sorted(total) if name.startswith("style/") and pruned[name] >= DOMAIN_REMOVED * total[name]
        ]
        shares[f"{split.name}/domains_removed"] = ", ".join(name.removeprefix("style/") for name in removed) or "none"
    return shares


def score(
    annotations: dict[tuple[str, str], Annotation],
    embeddings: Path,
    rule_queries: dict[str, set[str]],
    splits: Sequence[Path],
    centroids: NDArray[np.float16],
    eps: Sequence[float],
) -> dict[str, Any]:
    """Compute all ground truth metrics of a study.

    The metrics are the rank-1 recall of copies, the precision and recall of deduplication, and the shares of rows that
    each split lost.

    Args:
        annotations: Annotation of each pool sample, by the shard and the key of the sample.
        embeddings: Folder of the embeddings of all sets.
        rule_queries: Keys of the queries that rules use, by the name of the benchmark.
        splits: Folders of the splits.
        centroids: Centroids of the clusters, fp16 [clusters, dim].
        eps: Values of eps at which deduplication is scored.

    Returns:
        The value of each metric by name.

    Raises:
        SimgapError: A pool row has no annotation.
    """
    pool = Embeddings(embeddings / "pool")
    table = pool.metadata(["shard", "key"])
    shards, keys = table.column("shard").to_pylist(), table.column("key").to_pylist()
    for shard, key in zip(shards, keys, strict=True):
        if (shard, key) not in annotations:
            raise SimgapError(
                f"{shard}: {key} has no json with an annotation; leave ground_truth empty for a pool without annotations"
            )
    aligned = [annotations[shard, key] for shard, key in zip(shards, keys, strict=True)]
    metrics: dict[str, Any] = {
        **rank1_recall(aligned, pool, embeddings, list(rule_queries)),
        **score_deduplication(pool, duplicate_groups(aligned, keys), centroids, eps),
    }
    for split in splits:
        metrics |= pruned_shares(aligned, split, rule_queries)
    return metrics
