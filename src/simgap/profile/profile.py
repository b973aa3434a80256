"""Measure what is left in a split: for every query its similarity to the kept rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output
from simgap.core.progress import progress
from simgap.profile.certificate import certify, summary
from simgap.prune import rules
from simgap.similarity.search.engines.choose import make_engine
from simgap.similarity.search.engines.engine import SearchRequest
from simgap.similarity.search.nearest import Nearest
from simgap.similarity.search.scan import scan_part
from simgap.store.columns import Similarity
from simgap.store.embeddings import Embeddings, check_same_embedder
from simgap.store.split import Split

# Rows whose kept ones are taken to memory together.
BLOCK_ROWS = 65_536
# Of the curve; the split's own is added.
THRESHOLDS = (-0.1, -0.05, -0.02, 0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)


def known_nearest(keep: NDArray[np.bool_], stored: Nearest) -> Nearest:
    """Give the nearest kept rows among the stored nearest rows of the whole pool, in their order, as many columns as stored."""
    kept = (stored.row >= 0) & keep[stored.row]
    first = np.argsort(~kept, axis=1, kind="stable")
    kept = np.take_along_axis(kept, first, 1)
    return Nearest(
        np.where(kept, np.take_along_axis(stored.similarity, first, 1), -np.inf),
        np.where(kept, np.take_along_axis(stored.row, first, 1), -1),
    )


def rescanned_nearest(
    pool: Embeddings, keep: NDArray[np.bool_], queries: NDArray[np.float16], neighbours: int, engine_name: str
) -> Nearest:
    """Find the nearest kept rows by a pass over them.

    Memory: the queries, a block of rows, what the engine takes, and 8 bytes a kept row.
    """
    engine = make_engine(engine_name, SearchRequest(queries, neighbours))
    nearest = Nearest.none(len(queries), neighbours)
    rows = np.flatnonzero(keep)
    scanned = 0
    bar: Any = progress(None, len(rows), "kept rows", "row")
    with bar:
        for first, block in pool.blocks(BLOCK_ROWS):
            kept = block[keep[first : first + len(block)]]
            if len(kept):
                _, found = scan_part(engine, scanned, kept, nearest, bar.update)
                nearest = nearest.merged(found)
                scanned += len(kept)
    return Nearest(nearest.similarity, np.where(nearest.row >= 0, rows[nearest.row], -1))


def nearest_kept(
    keep: NDArray[np.bool_], pool: Embeddings, benchmark: Embeddings, stored: Nearest, engine_name: str
) -> tuple[Nearest, int]:
    """Give each query's nearest kept rows, as many as are stored of the whole pool, and how many queries needed a pass.

    Where enough of the stored rows are kept they are the answer; only the other queries are asked of all kept rows.
    """
    nearest = known_nearest(keep, stored)
    lacking = (nearest.row >= 0).sum(axis=1) < min(int(keep.sum()), stored.row.shape[1])
    if lacking.any():
        found = rescanned_nearest(pool, keep, benchmark.read()[lacking], stored.row.shape[1], engine_name)
        nearest.similarity[lacking], nearest.row[lacking] = found.similarity, found.row
    return nearest, int(lacking.sum())


def rows_by_class(
    full: NDArray[np.bool_], keep: NDArray[np.bool_], nearest_query: NDArray[np.int32], labels: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the rows of full, and the kept ones, by the class of their nearest query: each int64 [classes]. Memory: a block.

    Args:
        nearest_query: int32 [pool rows], the queries numbered as `labels` are.
        labels: int32 [queries].
    """
    classes = int(labels.max()) + 1
    counts = np.zeros((2, classes), np.int64)
    for start in range(0, len(full), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        nearest = labels[nearest_query[block]]
        for count, chosen in zip(counts, (full, keep), strict=True):
            count += np.bincount(nearest[chosen[block]], minlength=classes)
    return counts[0], counts[1]


def _matrix(table: pa.Table, name: str) -> NDArray[Any]:
    values: NDArray[Any] = pc.list_flatten(table.column(name)).to_numpy()
    return values.reshape(len(table), -1)


def profile_benchmark(
    keep: NDArray[np.bool_],
    full: NDArray[np.bool_],
    pool: Embeddings,
    benchmark: Embeddings,
    similarity: Similarity,
    engine_name: str,
    out: Path,
) -> dict[str, Any]:
    """Write a benchmark's two tables and give its metrics; see `profile`.

    Raises:
        SimgapError: the stored similarity is of other queries.
    """
    table = similarity.queries(["label", "reference_similarity", "nearest_rows", "nearest_similarities"])
    if len(table) != benchmark.rows:
        raise SimgapError(
            f"{similarity.folder}: has {len(table)} queries, {benchmark.folder} has {benchmark.rows}; measure it again"
        )
    in_reference = table.column("reference_similarity").to_numpy()
    stored = Nearest(
        _matrix(table, "nearest_similarities").astype(np.float64), _matrix(table, "nearest_rows").astype(np.int64)
    )
    nearest, rescanned = nearest_kept(keep, pool, benchmark, stored, engine_name)
    in_kept = nearest.similarity[:, 0].astype(np.float32)
    joined = np.maximum(in_kept, in_reference)
    known = nearest.row >= 0
    pq.write_table(
        pa.table(
            {
                "row": np.arange(len(table), dtype=np.int32),
                "similarity": pa.array(in_kept, mask=~np.isfinite(in_kept)),
                "similarity_with_reference": joined,
                "nearest_rows": pa.array(
                    [row[there] for row, there in zip(nearest.row, known, strict=True)], pa.list_(pa.int64())
                ),
                "nearest_similarities": pa.array(
                    [row[there] for row, there in zip(nearest.similarity.astype(np.float32), known, strict=True)],
                    pa.list_(pa.float32()),
                ),
            }
        ),
        out / f"{similarity.folder.name}.parquet",
    )
    labels = table.column("label").to_numpy()
    of_full, of_kept = rows_by_class(full, keep, similarity.column("nearest_query"), labels)
    (out / "classes").mkdir(exist_ok=True)
    pq.write_table(
        pa.table({"label": np.arange(len(of_full), dtype=np.int32), "rows_of_full": of_full, "kept": of_kept}),
        out / "classes" / f"{similarity.folder.name}.parquet",
    )
    metrics: dict[str, Any] = {
        "gap_to_reference_mean": float((joined.astype(np.float64) - in_reference.astype(np.float64)).mean())
    }
    if keep.any():
        metrics |= summary(in_kept, "similarity")
        metrics["nearer_than_reference_share"] = float((in_kept > in_reference).mean())
        metrics["queries_rescanned"] = rescanned
    return metrics


def threshold_curve(
    kept_rows: int, threshold: float, full: NDArray[np.bool_], margins: Sequence[NDArray[np.float32]], where: str
) -> dict[str, int]:
    """Give how many rows of full an imagenet-like split's rule would prune at other thresholds, and does at its own.

    Raises:
        SimgapError: at its own threshold, that is not what it did.
    """
    thresholds = sorted({*THRESHOLDS, threshold})
    pruned = dict(zip(thresholds, rules.rows_pruned(full, margins, thresholds), strict=True))
    if pruned[threshold] != int(full.sum()) - kept_rows:
        raise SimgapError(
            f"{where}: keeps {kept_rows} of {int(full.sum())} rows, though {pruned[threshold]} have a margin above "
            f"{threshold}; prune again"
        )
    return {f"rows_pruned_at/{value}": count for value, count in pruned.items()}


def profile(
    split: Split,
    keep: NDArray[np.bool_],
    full: NDArray[np.bool_],
    pool: Embeddings,
    reference: Embeddings,
    benchmarks: dict[str, tuple[Embeddings, Similarity]],
    engine_name: str,
    out: Path,
) -> dict[str, Any]:
    """Write two tables for each benchmark, certify an imagenet-like split, and give the metrics.

    `<benchmark>.parquet` has a row a query: `similarity` fp32 to the kept pool rows (null where none is kept),
    `similarity_with_reference` fp32, to them and the reference rows, and lists of the `nearest_rows` int64 among the kept
    ones and their `nearest_similarities` fp32, as many as were stored of the whole pool. Where enough of the stored rows are
    kept they are the answer; only the other queries, `queries_rescanned`, need a pass over the kept rows. Both give canonical
    similarities. `classes/<benchmark>.parquet` counts the pool rows by the class of their nearest query of the rule's.

    Args:
        full: the deduplicated pool, bool [pool rows].
        engine_name: what multiplies, one of `ENGINES`; speed, not results.

    Raises:
        SimgapError: the split belongs to other pool rows, or an imagenet-like split has a kept row that its rule forbids.
    """
    if split.row_order != pool.row_order:
        raise SimgapError(f"{out.name}: the split was made from other pool rows or another embedder; prune again")
    metrics: dict[str, Any] = {}
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        for name, (benchmark, similarity) in progress(
            benchmarks.items(), len(benchmarks), f"profile {out.name}", "benchmark"
        ):
            check_same_embedder(pool, reference, benchmark)
            of_benchmark = profile_benchmark(keep, full, pool, benchmark, similarity, engine_name, partial)
            if split.threshold is not None and name in split.benchmarks:
                where = f"split {out.name}, benchmark {name}"
                of_benchmark |= certify(keep, split.threshold, pool, reference, benchmark, similarity, where)
            metrics |= {f"{name}/{key}": value for key, value in of_benchmark.items()}
        if split.threshold is not None:
            margins = [benchmarks[name][1].column("margin") for name in split.benchmarks]
            metrics |= threshold_curve(split.kept, split.threshold, full, margins, f"split {out.name}")
    return metrics
