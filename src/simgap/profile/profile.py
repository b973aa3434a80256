"""Measure the similarity profile of a split.

The profile has the similarity of every query to its nearest kept rows.
"""

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

# The pool is read in blocks of this many rows. Memory grows with this number.
BLOCK_ROWS = 65_536
# The report plots how many rows the rule prunes at each threshold. The rows are counted at these thresholds and at the
# threshold of the split.
THRESHOLDS = (-0.1, -0.05, -0.02, 0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)


def known_nearest(keep: NDArray[np.bool_], stored: Nearest) -> Nearest:
    """Select the kept rows from the stored nearest rows of the whole pool.

    Args:
        keep: bool [pool rows]; true for the rows that the split keeps.
        stored: The nearest rows of each query in the whole pool.

    Returns:
        The kept rows in the order of `stored`. The arrays have the same shape as in `stored`, so some rows may be missing.
        Missing rows have similarity -inf and number -1.
    """
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
    """Search all kept rows for the nearest rows of each query.

    Memory: the queries, a block of rows, the memory of the engine, and 8 bytes for each kept row.

    Args:
        pool: Embeddings of the pool.
        keep: bool [pool rows]; true for the rows that the split keeps.
        queries: Vectors of the queries, fp16 [queries, dim].
        neighbours: Number of nearest rows to find for each query.
        engine_name: Name of the similarity engine. Every engine gives the same result.

    Returns:
        The nearest kept rows of each query. A row has the number that it has in the pool.
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
    """Find the nearest kept rows of each query.

    `stored` has a fixed number of nearest rows for each query. The function finds this number of kept rows. If enough
    of a query's stored rows are kept, these rows are the result. For the other queries, the function searches all kept
    rows.

    Args:
        keep: bool [pool rows]; true for the rows that the split keeps.
        pool: Embeddings of the pool.
        benchmark: Embeddings of the benchmark.
        stored: The nearest rows of each query in the whole pool.
        engine_name: Name of the similarity engine. Every engine gives the same result.

    Returns:
        The nearest kept rows of each query, and the number of queries that needed the search of all kept rows.
    """
    nearest = known_nearest(keep, stored)
    incomplete = (nearest.row >= 0).sum(axis=1) < min(int(keep.sum()), stored.row.shape[1])
    if incomplete.any():
        found = rescanned_nearest(pool, keep, benchmark.read()[incomplete], stored.row.shape[1], engine_name)
        nearest.similarity[incomplete], nearest.row[incomplete] = found.similarity, found.row
    return nearest, int(incomplete.sum())


def rows_by_class(
    full: NDArray[np.bool_], keep: NDArray[np.bool_], nearest_query: NDArray[np.int32], labels: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count rows by the class of their nearest rule query.

    The function counts the rows of the full split and the rows of this split. Memory: a block of rows.

    Args:
        full: bool [pool rows]; true for the rows of the full split.
        keep: bool [pool rows]; true for the rows that this split keeps.
        nearest_query: Number of the nearest rule query of each row, int32 [pool rows].
        labels: Class of each query, int32 [queries].

    Returns:
        Two arrays, both int64 [classes]. The first array has the number of rows of the full split in each class. The
        second array has the number of rows of this split in each class.
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
    """Write the two tables of one benchmark; see `profile`.

    Args:
        keep: bool [pool rows]; true for the rows that the split keeps.
        full: bool [pool rows]; true for the rows of the full split.
        pool: Embeddings of the pool.
        benchmark: Embeddings of the benchmark.
        similarity: Stored similarity of the pool to the benchmark.
        engine_name: Name of the similarity engine. Every engine gives the same result.
        out: Folder to write to.

    Returns:
        The metrics of the benchmark by name.

    Raises:
        SimgapError: The stored similarity and the benchmark have different numbers of queries.
    """
    table = similarity.queries(["label", "reference_similarity", "nearest_rows", "nearest_similarities"])
    if len(table) != benchmark.rows:
        raise SimgapError(
            f"{similarity.folder} has {len(table)} queries, but {benchmark.folder} has {benchmark.rows}; "
            "measure the similarity again."
        )
    reference_similarity = table.column("reference_similarity").to_numpy()
    stored = Nearest(
        _matrix(table, "nearest_similarities").astype(np.float64), _matrix(table, "nearest_rows").astype(np.int64)
    )
    nearest, rescanned = nearest_kept(keep, pool, benchmark, stored, engine_name)
    kept_similarity = nearest.similarity[:, 0].astype(np.float32)
    with_reference = np.maximum(kept_similarity, reference_similarity)
    found = nearest.row >= 0
    pq.write_table(
        pa.table(
            {
                "row": np.arange(len(table), dtype=np.int32),
                "similarity": pa.array(kept_similarity, mask=~np.isfinite(kept_similarity)),
                "similarity_with_reference": with_reference,
                "nearest_rows": pa.array(
                    [row[valid] for row, valid in zip(nearest.row, found, strict=True)], pa.list_(pa.int64())
                ),
                "nearest_similarities": pa.array(
                    [row[valid] for row, valid in zip(nearest.similarity.astype(np.float32), found, strict=True)],
                    pa.list_(pa.float32()),
                ),
            }
        ),
        out / f"{similarity.folder.name}.parquet",
    )
    labels = table.column("label").to_numpy()
    full_rows, kept_rows = rows_by_class(full, keep, similarity.column("nearest_query"), labels)
    (out / "classes").mkdir(exist_ok=True)
    pq.write_table(
        pa.table({"label": np.arange(len(full_rows), dtype=np.int32), "rows_of_full": full_rows, "kept": kept_rows}),
        out / "classes" / f"{similarity.folder.name}.parquet",
    )
    metrics: dict[str, Any] = {
        "gap_to_reference_mean": float(
            (with_reference.astype(np.float64) - reference_similarity.astype(np.float64)).mean()
        )
    }
    if keep.any():
        metrics |= summary(kept_similarity, "similarity")
        metrics["nearer_than_reference_share"] = float((kept_similarity > reference_similarity).mean())
        metrics["queries_rescanned"] = rescanned
    return metrics


def threshold_curve(
    kept_rows: int, threshold: float, full: NDArray[np.bool_], margins: Sequence[NDArray[np.float32]], where: str
) -> dict[str, int]:
    """Count how many rows of the full split the imagenet-like rule prunes at several thresholds.

    Args:
        kept_rows: Number of rows that the split keeps.
        threshold: Threshold of the split.
        full: bool [pool rows]; true for the rows of the full split.
        margins: One array for each benchmark of the rule. Each array has the margins of all pool rows, fp32 [pool
            rows].
        where: Split to name in the error message.

    Returns:
        The metrics by name. Each metric is the number of pruned rows at one threshold.

    Raises:
        SimgapError: At the threshold of the split, the rule keeps another number of rows than the split.
    """
    thresholds = sorted({*THRESHOLDS, threshold})
    pruned = dict(zip(thresholds, rules.rows_pruned(full, margins, thresholds), strict=True))
    if pruned[threshold] != int(full.sum()) - kept_rows:
        raise SimgapError(
            f"{where}: the split keeps {kept_rows} of {int(full.sum())} rows, but {pruned[threshold]} have a margin above "
            f"{threshold}; prune again."
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
    """Write two tables for each benchmark, and check the rule of an imagenet-like split.

    `<benchmark>.parquet` has one row for each query:

    - `similarity`: fp32, similarity to the nearest kept pool row; null if no row is kept.
    - `similarity_with_reference`: fp32, similarity to the nearest row among the kept pool rows and the reference rows.
    - `nearest_rows`: list of int64, numbers of the nearest kept pool rows. The list has as many rows as are stored for the
      whole pool, or all kept rows if there are fewer.
    - `nearest_similarities`: list of fp32, similarities of these pool rows.

    All similarities are exact. If enough of a query's stored rows are kept, these rows are the result. For the other queries,
    the function searches all kept rows. The metric `queries_rescanned` is the number of these other queries.

    `classes/<benchmark>.parquet` has one row for each class. It has the number of pool rows whose nearest rule query belongs
    to the class. One column counts the rows of the full split, and another column counts the rows of this split.

    Args:
        split: The split.
        keep: bool [pool rows]; true for the rows that the split keeps.
        full: bool [pool rows]; true for the rows of the full split, which is the deduplicated pool.
        pool: Embeddings of the pool.
        reference: Embeddings of the reference.
        benchmarks: Embeddings and stored similarity of each benchmark, by name.
        engine_name: Name of the similarity engine. Every engine gives the same result.
        out: Folder to write.

    Returns:
        The metrics by name.

    Raises:
        SimgapError: The split belongs to other pool rows, or an imagenet-like split keeps a row that its rule prunes.
    """
    if split.row_order != pool.row_order:
        raise SimgapError(f"{out.name}: the split belongs to other pool rows or to another embedder; prune again.")
    metrics: dict[str, Any] = {}
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        for name, (benchmark, similarity) in progress(
            benchmarks.items(), len(benchmarks), f"profile {out.name}", "benchmark"
        ):
            check_same_embedder(pool, reference, benchmark)
            benchmark_metrics = profile_benchmark(keep, full, pool, benchmark, similarity, engine_name, partial)
            if split.threshold is not None and name in split.benchmarks:
                where = f"split {out.name}, benchmark {name}"
                benchmark_metrics |= certify(keep, split.threshold, pool, reference, benchmark, similarity, where)
            metrics |= {f"{name}/{key}": value for key, value in benchmark_metrics.items()}
        if split.threshold is not None:
            margins = [benchmarks[name][1].column("margin") for name in split.benchmarks]
            metrics |= threshold_curve(split.kept, split.threshold, full, margins, f"split {out.name}")
    return metrics
