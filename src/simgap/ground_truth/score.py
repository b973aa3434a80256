"""Score embedder, deduplication and pruning against the marks."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.data.marks import Annotation
from simgap.deduplicate.centroids import assign
from simgap.deduplicate.within_cluster import near_duplicates
from simgap.similarity.search.exact import exact_product
from simgap.store.embeddings import Embeddings
from simgap.store.split import KEEP_FILE, read_keep, read_split

BLOCK_ROWS = 2048
# A split that is without this share of a style has lost a domain, not samples.
DOMAIN_REMOVED = 0.95


def _rows_by_key(embeddings: Embeddings) -> dict[str, int]:
    return {key: row for row, key in enumerate(embeddings.metadata(["key"]).column("key").to_pylist())}


def rank_of_copies(
    pool: Embeddings, queries: NDArray[np.float16], copies: NDArray[np.int64], own: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each query the number of pool rows strictly more similar to it than its copy is: int64 [queries], 0 is rank 1.

    Args:
        queries: fp16 [queries, dim].
        copies: pool row of each query's copy.
        own: pool row of the query itself, which does not count; -1 where it is no pool row.
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
    marks: Sequence[Annotation], pool: Embeddings, embeddings: Path, benchmarks: Sequence[str]
) -> dict[str, float]:
    """Give the share of planted copies that are the nearest pool row of what they repeat, by kind and over exact and near.

    Copies of pool, reference and `benchmarks` count; a world may also hold copies of benchmarks that the study leaves out.
    """
    ranks: dict[str, list[int]] = defaultdict(list)
    by_source: dict[str, list[tuple[int, Annotation]]] = defaultdict(list)
    counted = {"pool", "reference", *benchmarks}
    for row, mark in enumerate(marks):
        if mark.source is not None and mark.source in counted:
            by_source[mark.source].append((row, mark))
    for source, planted in sorted(by_source.items()):
        originals = Embeddings(embeddings / source)
        rows = _rows_by_key(originals)
        planted = [(row, mark) for row, mark in planted if mark.key in rows]
        own = np.array([rows[str(mark.key)] for _, mark in planted], np.int64)
        nearer = rank_of_copies(
            pool,
            originals.read()[own],
            np.array([row for row, _ in planted], np.int64),
            own if source == "pool" else np.full(len(own), -1, np.int64),
        )
        for (_, mark), rank in zip(planted, nearer, strict=True):
            ranks[str(mark.planted)].append(int(rank))
    copies = ranks["exact"] + ranks["near"]
    result = {f"rank1_recall/{how}": float(np.mean([r == 0 for r in found])) for how, found in ranks.items() if found}
    return {**result, "rank1_recall/copies": float(np.mean([r == 0 for r in copies]))} if copies else result


def duplicate_groups(marks: Sequence[Annotation], keys: Sequence[str]) -> NDArray[np.int64]:
    """Number the pool rows by what they show: a row and its marked exact and near copies share a number, int64 [rows]."""
    group = np.arange(len(marks), dtype=np.int64)
    rows = {key: row for row, key in enumerate(keys)}
    # Two rows may also repeat one image that is not in the pool.
    outside: dict[tuple[str | None, str | None], int] = {}
    for row, mark in enumerate(marks):
        if mark.planted in ("exact", "near"):
            if mark.source == "pool" and mark.key in rows:
                group[row] = rows[mark.key]
            else:
                group[row] = outside.setdefault((mark.source, mark.key), row)
    return group


def deduplication(
    pool: Embeddings, group: NDArray[np.int64], centroids: NDArray[np.float16], eps: Sequence[float]
) -> dict[str, float]:
    """Precision and recall of the deduplication rule at each eps, over rows.

    A row is a true duplicate where a lower row has its group. Natural duplicates are not marked: precision is a lower bound.
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


def pruned_shares(marks: Sequence[Annotation], split: Path, rule_queries: dict[str, set[str]]) -> dict[str, Any]:
    """Give the share of pool rows that a split is without, by style, by class, and of copies of its benchmarks' images.

    Copies of queries that the rule saw (`rule_queries`, keys by benchmark) count as `planted`, those of the others as
    `planted_held_out`. For an imagenet-like split also `domains_removed`, in words: the styles of which at least 95% are gone.
    """
    info = read_split(split)
    keep = read_keep(split / KEEP_FILE, info.pool_rows)
    total: Counter[str] = Counter()
    gone: Counter[str] = Counter()
    for row, mark in enumerate(marks):
        names = [f"style/{mark.style}", f"class/{mark.kind or 'none'}"]
        if mark.planted and mark.source in info.benchmarks:
            seen = mark.key in rule_queries[mark.source]
            names.append(f"{'planted' if seen else 'planted_held_out'}/{mark.planted}")
        total.update(names)
        if not keep[row]:
            gone.update(names)
    shares: dict[str, Any] = {
        f"{split.name}/pruned_share/{name}": gone[name] / count for name, count in sorted(total.items())
    }
    if info.rule == "imagenet-like":
        removed = [
            name for name in sorted(total) if name.startswith("style/") and gone[name] >= DOMAIN_REMOVED * total[name]
        ]
        shares[f"{split.name}/domains_removed"] = ", ".join(name.removeprefix("style/") for name in removed) or "none"
    return shares


def score(
    marks: dict[tuple[str, str], Annotation],
    embeddings: Path,
    rule_queries: dict[str, set[str]],
    splits: Sequence[Path],
    centroids: NDArray[np.float16],
    eps: Sequence[float],
) -> dict[str, Any]:
    """Give all that the marks say: recall of copies, deduplication over eps, and what each split is without.

    Args:
        rule_queries: by benchmark, the keys of the queries that rules see.

    Raises:
        SimgapError: a pool row has no marks.
    """
    pool = Embeddings(embeddings / "pool")
    table = pool.metadata(["shard", "key"])
    shards, keys = table.column("shard").to_pylist(), table.column("key").to_pylist()
    for shard, key in zip(shards, keys, strict=True):
        if (shard, key) not in marks:
            raise SimgapError(f"{shard}: {key} has no json with marks; leave ground_truth empty for pools without them")
    aligned = [marks[shard, key] for shard, key in zip(shards, keys, strict=True)]
    metrics: dict[str, Any] = {
        **rank1_recall(aligned, pool, embeddings, list(rule_queries)),
        **deduplication(pool, duplicate_groups(aligned, keys), centroids, eps),
    }
    for split in splits:
        metrics |= pruned_shares(aligned, split, rule_queries)
    return metrics
