"""Measure the similarity of a pool to one benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.core.executor import LOCAL, Executor
from simgap.core.files import atomic_output, write_json
from simgap.params.similarity import SimilarityParameters
from simgap.similarity.search.engines.choose import make_engine
from simgap.similarity.search.engines.engine import SearchRequest
from simgap.similarity.search.scan import COLUMNS, nearest_rows, scan, scanned_column
from simgap.store.arrays import read_array
from simgap.store.columns import INFO_FILE, QUERIES_FILE
from simgap.store.embeddings import Embeddings, check_same_embedder


def rule_queries(queries: int, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose the rule queries at random. The pruning rules may use these queries only.

    Args:
        queries: Number of queries.
        fraction: Fraction of the queries to choose. At least one query is chosen.
        seed: Seed of the random generator.

    Returns:
        bool [queries]; true for the chosen queries.
    """
    chosen = np.zeros(queries, np.bool_)
    count = max(1, round(fraction * queries))
    chosen[np.random.default_rng(seed).permutation(queries)[:count]] = True
    return chosen


def measure(
    parameters: SimilarityParameters,
    pool: Embeddings,
    reference: Embeddings,
    benchmark: Embeddings,
    used_by_rule: NDArray[np.bool_],
    out: Path,
    scratch: Path,
    engine: str = "auto",
    executor: Executor = LOCAL,
) -> dict[str, Any]:
    """Measure the similarity of a pool to a benchmark, and write the results to `out`.

    The function reads the pool once. `best.npy`, `nearest_query.npy` and `margin.npy` have one value for each pool row.
    These values depend on the rule queries only. `queries.parquet` has one row for each query of the benchmark. Memory:
    O(queries + tile).

    Args:
        parameters: Number of nearest pool rows to store for each query.
        pool: Embeddings of the pool.
        reference: Embeddings of the reference.
        benchmark: Embeddings and labels of the benchmark.
        used_by_rule: bool [queries]; true for the rule queries, which the pruning rules may use.
        out: Folder to write.
        scratch: Folder of the finished parts. A restarted stage does not repeat these parts.
        engine: Name of the similarity engine. Every engine gives the same result.
        executor: Executor that processes the parts of the pool. Every executor gives the same result.

    Returns:
        The metrics by name.

    Raises:
        SimgapError: The embeddings come from different embedders, or one of the datasets has no rows.
    """
    check_same_embedder(pool, reference, benchmark)
    for embeddings in (pool, reference, benchmark):
        if not embeddings.rows:
            raise SimgapError(f"{embeddings.folder}: the set has no rows; embed at least one sample.")
    queries = benchmark.read()
    reference_nearest = nearest_rows(reference, make_engine(engine, SearchRequest(queries, 1)))
    reference_similarity = reference_nearest.similarity[:, 0]
    request = SearchRequest(queries, parameters.neighbours, reference_similarity, used_by_rule)
    pool_nearest = scan(pool, request, engine, scratch, f"similarity {pool.folder.name}", executor)
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        for name, dtype in COLUMNS.items():
            column = open_memmap(partial / f"{name}.npy", mode="w+", dtype=dtype, shape=(pool.rows,))
            for first_row, part in scanned_column(scratch, pool, name):
                column[first_row : first_row + len(part)] = part
            column.flush()
        positive_margins = int((read_array(partial / "margin.npy", mapped=True) > 0).sum())
        pq.write_table(
            pa.table(
                {
                    "row": np.arange(len(queries), dtype=np.int32),
                    "label": benchmark.metadata(["label"]).column("label").to_numpy(),
                    "used_by_rule": used_by_rule,
                    "reference_similarity": reference_similarity.astype(np.float32),
                    "reference_row": reference_nearest.row[:, 0].astype(np.int32),
                    "pool_similarity": pool_nearest.similarity[:, 0].astype(np.float32),
                    "nearest_rows": pa.array(list(pool_nearest.row), pa.list_(pa.int64())),
                    "nearest_similarities": pa.array(
                        list(pool_nearest.similarity.astype(np.float32)), pa.list_(pa.float32())
                    ),
                }
            ),
            partial / QUERIES_FILE,
        )
        write_json(partial / INFO_FILE, {"row_order": pool.row_order, "pool_rows": pool.rows, "queries": len(queries)})
    return {
        "pool_rows": pool.rows,
        "queries": len(queries),
        "queries_used_by_rule": int(used_by_rule.sum()),
        "reference_similarity_mean": float(reference_similarity.mean()),
        "pool_similarity_mean": float(pool_nearest.similarity[:, 0].mean()),
        "queries_nearer_to_pool_share": float((pool_nearest.similarity[:, 0] > reference_similarity).mean()),
        "rows_with_positive_margin_share": positive_margins / pool.rows,
    }
