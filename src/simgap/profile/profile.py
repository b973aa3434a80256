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

from simgap.embed.store import Embeddings, check_same_embedder
from simgap.errors import SimgapError
from simgap.files import complete
from simgap.profile.certificate import certify, summary
from simgap.progress import progress
from simgap.prune import rules
from simgap.prune.split import Split
from simgap.similarity.columns import Similarity
from simgap.similarity.engines.choose import make_engine
from simgap.similarity.engines.engine import Questions
from simgap.similarity.nearest import Nearest
from simgap.similarity.scan import scan_part

# Rows whose kept ones are taken to memory together.
BLOCK_ROWS = 65_536
# Of the curve; the split's own is added.
THRESHOLDS = (-0.1, -0.05, -0.02, 0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)


def known_similarity(
    keep: NDArray[np.bool_], nearest_rows: NDArray[np.int64], nearest_similarities: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Give s_q of the kept rows where one is among the stored nearest rows: fp32 [queries], -inf where none is.

    Args:
        nearest_rows: [queries, k], the nearest of all pool rows; -1 stands for no row.
        nearest_similarities: fp32 [queries, k].
    """
    kept = (nearest_rows >= 0) & keep[nearest_rows]
    largest: NDArray[np.float32] = np.where(kept, nearest_similarities, np.float32(-np.inf)).max(axis=1)
    return largest


def rescanned_similarity(
    pool: Embeddings, keep: NDArray[np.bool_], queries: NDArray[np.float16], engine_name: str
) -> NDArray[np.float32]:
    """Find s_q of the kept rows by a pass over them: fp32 [queries], -inf where no row is kept.

    Memory: the queries, a block of rows, and what the engine takes.
    """
    engine = make_engine(engine_name, Questions(queries, 1))
    nearest = Nearest.none(len(queries), 1)
    scanned = 0
    bar: Any = progress(None, int(keep.sum()), "kept rows", "row")
    with bar:
        for first, block in pool.blocks(BLOCK_ROWS):
            kept = block[keep[first : first + len(block)]]
            if len(kept):
                _, found = scan_part(engine, scanned, kept, nearest, bar.update)
                nearest = nearest.merged(found)
                scanned += len(kept)
    similarity: NDArray[np.float32] = nearest.similarity[:, 0].astype(np.float32)
    return similarity


def _matrix(table: pa.Table, name: str) -> NDArray[Any]:
    values: NDArray[Any] = pc.list_flatten(table.column(name)).to_numpy()
    return values.reshape(len(table), -1)


def profile_benchmark(
    keep: NDArray[np.bool_],
    pool: Embeddings,
    benchmark: Embeddings,
    similarity: Similarity,
    engine_name: str,
    out: Path,
) -> dict[str, Any]:
    """Write a benchmark's table and give its metrics; see `profile`.

    Raises:
        SimgapError: the stored similarity is of other queries.
    """
    table = similarity.queries(["reference_similarity", "nearest_rows", "nearest_similarities"])
    if len(table) != benchmark.rows:
        raise SimgapError(
            f"{similarity.folder}: has {len(table)} queries, {benchmark.folder} has {benchmark.rows}; measure it again"
        )
    in_reference = table.column("reference_similarity").to_numpy()
    in_kept = known_similarity(keep, _matrix(table, "nearest_rows"), _matrix(table, "nearest_similarities"))
    unknown = np.isneginf(in_kept)
    if unknown.any():
        in_kept[unknown] = rescanned_similarity(pool, keep, benchmark.read()[unknown], engine_name)
    joined = np.maximum(in_kept, in_reference)
    pq.write_table(
        pa.table(
            {
                "row": np.arange(len(table), dtype=np.int32),
                "similarity": pa.array(in_kept, mask=~np.isfinite(in_kept)),
                "similarity_with_reference": joined,
            }
        ),
        out,
    )
    metrics: dict[str, Any] = {
        "gap_to_reference_mean": float((joined.astype(np.float64) - in_reference.astype(np.float64)).mean())
    }
    if keep.any():
        metrics |= summary(in_kept, "similarity")
        metrics["nearer_than_reference_share"] = float((in_kept > in_reference).mean())
        metrics["queries_rescanned"] = int(unknown.sum())
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
    """Write a table for each benchmark, one row a query, certify an imagenet-like split, and give the metrics.

    Columns: `similarity` fp32 to the kept pool rows (null where none is kept), and `similarity_with_reference` fp32, to
    them and the reference rows. Where the stored nearest rows of a query have a kept one, the first of them is the answer;
    only the other queries, `queries_rescanned`, need a pass over the kept rows. Both give canonical similarities.

    Args:
        full: the deduplicated pool, bool [pool rows].
        engine_name: what multiplies, one of `ENGINES`; speed, not results.

    Raises:
        SimgapError: the split belongs to other pool rows, or an imagenet-like split has a kept row that its rule forbids.
    """
    if split.row_order != pool.row_order:
        raise SimgapError(f"{out.name}: the split was made from other pool rows or another embedder; prune again")
    metrics: dict[str, Any] = {}
    with complete(out) as partial:
        partial.mkdir(parents=True)
        for name, (benchmark, similarity) in progress(
            benchmarks.items(), len(benchmarks), f"profile {out.name}", "benchmark"
        ):
            check_same_embedder(pool, reference, benchmark)
            of_benchmark = profile_benchmark(
                keep, pool, benchmark, similarity, engine_name, partial / f"{name}.parquet"
            )
            if split.threshold is not None and name in split.benchmarks:
                where = f"split {out.name}, benchmark {name}"
                of_benchmark |= certify(keep, split.threshold, pool, reference, benchmark, similarity, where)
            metrics |= {f"{name}/{key}": value for key, value in of_benchmark.items()}
        if split.threshold is not None:
            margins = [benchmarks[name][1].column("margin") for name in split.benchmarks]
            metrics |= threshold_curve(split.kept, split.threshold, full, margins, f"split {out.name}")
    return metrics
