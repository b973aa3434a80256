"""Measure what is left in a split: for every query its similarity to the kept rows, found anew from the embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.embed.store import Embeddings, check_same_embedder
from simgap.errors import SimgapError
from simgap.files import complete
from simgap.progress import progress
from simgap.prune.split import Split
from simgap.similarity.columns import Similarity

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def nearest_kept(
    pool: Embeddings, keep: NDArray[np.bool_], queries: NDArray[np.float16], block_rows: int
) -> NDArray[np.float64]:
    """Give s_q of the kept pool rows for each query, float64 [queries], exact; -inf where no row is kept.

    A plain float64 scan that shares no code with the engine whose columns the rules read.
    """
    wide = queries.astype(np.float64).T
    largest = np.full(len(queries), -np.inf)
    for first, block in pool.blocks(block_rows):
        kept = block[keep[first : first + len(block)]]
        if len(kept):
            np.maximum(largest, (kept.astype(np.float64) @ wide).max(axis=0), out=largest)
    return largest


def _summary(values: NDArray[np.float64], name: str) -> dict[str, float]:
    return {
        f"{name}/mean": float(values.mean()),
        f"{name}/smallest": float(values.min()),
        **{f"{name}/quantile_{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)},
    }


def certify(
    kept_similarity: NDArray[np.float64],
    reference_similarity: NDArray[np.float64],
    threshold: float,
    where: str,
) -> dict[str, Any]:
    """Check that no kept row is closer to a rule's query than the reference is, plus the threshold.

    The difference is rounded to fp32 as a stored margin is, so that rule and check mean the same bound.

    Raises:
        SimgapError: a query is violated.
    """
    excess = (kept_similarity - reference_similarity).astype(np.float32).astype(np.float64)
    violations = int((excess > threshold).sum())
    if violations:
        raise SimgapError(
            f"{where}: {violations} of {len(excess)} queries are closer to a kept row than the threshold allows; "
            "the split does not follow its rule"
        )
    slack = threshold - excess
    finite = slack[np.isfinite(slack)]
    return {
        "certificate/queries_checked": len(excess),
        "certificate/violations": violations,
        **(_summary(finite, "certificate/slack") if len(finite) else {}),
    }


def profile(
    split: Split,
    keep: NDArray[np.bool_],
    pool: Embeddings,
    reference: Embeddings,
    benchmarks: dict[str, tuple[Embeddings, Similarity]],
    block_rows: int,
    out: Path,
) -> dict[str, Any]:
    """Write a table for each benchmark, one row a query, and give the metrics.

    Columns: `similarity` fp32 to the kept pool rows (null where none is kept), and `similarity_with_reference` fp32, to
    them and the reference rows.

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
            queries = benchmark.read()
            kept = nearest_kept(pool, keep, queries, block_rows)
            in_reference = nearest_kept(reference, np.ones(reference.rows, np.bool_), queries, block_rows)
            joined = np.maximum(kept, in_reference)
            pq.write_table(
                pa.table(
                    {
                        "row": np.arange(len(queries), dtype=np.int32),
                        "similarity": pa.array(kept.astype(np.float32), mask=~np.isfinite(kept)),
                        "similarity_with_reference": joined.astype(np.float32),
                    }
                ),
                partial / f"{name}.parquet",
            )
            if split.kept:
                metrics |= {f"{name}/{key}": value for key, value in _summary(kept, "similarity").items()}
                metrics[f"{name}/nearer_than_reference_share"] = float((kept > in_reference).mean())
            metrics[f"{name}/gap_to_reference_mean"] = float((joined - in_reference).mean())
            if split.rule == "imagenet-like" and name in split.benchmarks and split.threshold is not None:
                used = similarity.queries(["used_by_rule"]).column("used_by_rule").to_numpy()
                checked = certify(
                    kept[used], in_reference[used], split.threshold, f"split {out.name}, benchmark {name}"
                )
                metrics |= {f"{name}/{key}": value for key, value in checked.items()}
    return metrics
