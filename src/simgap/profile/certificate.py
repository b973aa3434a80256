"""Check the imagenet-like rule by plain float64 products.

The rule demands similarity(row, query) - similarity(query, reference) <= threshold for every kept row and every rule
query. This module shares no code with the similarity engines. An error in an engine therefore cannot hide from the
check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.store.columns import Similarity
from simgap.store.embeddings import Embeddings

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# A check computes a product for each pair of a kept row and a query. If all rule queries make more pairs than this, the
# check would take too long. It then uses only a random sample of the queries.
PAIRS = 10**10
# The check computes the products of this many rows with all queries at a time. Memory grows with this number.
BLOCK_ROWS = 1024
SAMPLE_SEED = 0


def summary(values: NDArray[Any], name: str) -> dict[str, float]:
    """Compute the mean, the smallest value and the quantiles of an array.

    Args:
        values: The values of the array.
        name: Prefix of the names of the metrics.

    Returns:
        The metrics by name.
    """
    values = values.astype(np.float64)
    return {
        f"{name}/mean": float(values.mean()),
        f"{name}/smallest": float(values.min()),
        **{f"{name}/quantile_{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)},
    }


def queries_to_check(used_by_rule: NDArray[np.bool_], kept_rows: int) -> NDArray[np.int64]:
    """Choose the rule queries to check.

    The function chooses all rule queries if they make at most `PAIRS` pairs with the kept rows. Otherwise, it chooses a
    seeded random sample. The sample is as large as `PAIRS` allows, and has at least one query.

    Args:
        used_by_rule: bool [queries]; true for the rule queries.
        kept_rows: Number of rows that the split keeps.

    Returns:
        Numbers of the chosen queries in ascending order, int64.
    """
    queries = np.flatnonzero(used_by_rule)
    if len(queries) * kept_rows <= PAIRS:
        return queries
    count = max(1, PAIRS // kept_rows)
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(queries, count, replace=False))


def nearest_similarity(rows: Embeddings, keep: NDArray[np.bool_], queries: NDArray[np.float16]) -> NDArray[np.float64]:
    """Compute the similarity of each query to its nearest kept row.

    Memory: the queries, a block of rows, and the products of both, all in float64.

    Args:
        rows: Embeddings of the rows.
        keep: bool [rows]; true for the kept rows.
        queries: Vectors of the queries, fp16 [queries, dim].

    Returns:
        Exact similarity of each query, float64 [queries]; -inf if no row is kept.
    """
    wide = queries.astype(np.float64).T
    largest = np.full(len(queries), -np.inf)
    for first, block in rows.blocks(BLOCK_ROWS):
        kept = block[keep[first : first + len(block)]]
        if len(kept):
            np.maximum(largest, (kept.astype(np.float64) @ wide).max(axis=0), out=largest)
    return largest


def check_bound(
    kept_similarity: NDArray[np.float64], reference_similarity: NDArray[np.float64], threshold: float, where: str
) -> dict[str, Any]:
    """Check that similarity(row, query) - similarity(query, reference) <= threshold for every kept row and query.

    The difference is rounded to fp32, because the rule also compares rounded margins.

    Args:
        kept_similarity: Similarity of each query to its nearest kept row, float64 [queries].
        reference_similarity: Similarity of each query to its nearest reference row, float64 [queries].
        threshold: Threshold of the rule.
        where: Split and benchmark to name in the error message.

    Returns:
        Metrics of the check by name. Some metrics summarize the slack of the queries. The slack of a query is the threshold
        minus the largest difference of this query. Infinite slacks are skipped.

    Raises:
        SimgapError: A query violates the bound.
    """
    excess = (kept_similarity - reference_similarity).astype(np.float32).astype(np.float64)
    violations = int((excess > threshold).sum())
    if violations:
        raise SimgapError(
            f"{where}: {violations} of {len(excess)} queries are closer to a kept row than the threshold allows, "
            "so the split does not follow its rule; prune again."
        )
    slack = threshold - excess
    finite = slack[np.isfinite(slack)]
    return {
        "certificate/queries_checked": len(excess),
        "certificate/violations": violations,
        **(summary(finite, "certificate/slack") if len(finite) else {}),
    }


def certify(
    keep: NDArray[np.bool_],
    threshold: float,
    pool: Embeddings,
    reference: Embeddings,
    benchmark: Embeddings,
    similarity: Similarity,
    where: str,
) -> dict[str, Any]:
    """Check the imagenet-like rule of a split for the rule queries of one benchmark.

    Memory: see `nearest_similarity`.

    Args:
        keep: bool [pool rows]; true for the rows that the split keeps.
        threshold: Threshold of the rule.
        pool: Embeddings of the pool.
        reference: Embeddings of the reference.
        benchmark: Embeddings of the benchmark.
        similarity: Stored similarity of the pool to the benchmark.
        where: Split and benchmark to name in error messages.

    Returns:
        Metrics by name. `certificate/queries` is the number of rule queries. `certificate/queries_checked` is the number of
        checked queries. `certificate/sampled` is true if only a sample was checked. `check_bound` describes the
        other metrics.

    Raises:
        SimgapError: A query violates the bound, or its stored reference similarity is wrong.
    """
    table = similarity.queries(["used_by_rule", "reference_similarity"])
    used_by_rule = table.column("used_by_rule").to_numpy()
    checked = queries_to_check(used_by_rule, int(keep.sum()))
    queries = benchmark.read()[checked]
    reference_similarity = nearest_similarity(reference, np.ones(reference.rows, np.bool_), queries)
    stored = table.column("reference_similarity").to_numpy()[checked]
    wrong = int((stored != reference_similarity.astype(np.float32)).sum())
    if wrong:
        raise SimgapError(
            f"{where}: {wrong} of {len(checked)} reference similarities in {similarity.folder} are wrong; "
            "measure the similarity again."
        )
    kept_similarity = nearest_similarity(pool, keep, queries)
    return {
        "certificate/queries": int(used_by_rule.sum()),
        "certificate/sampled": len(checked) < int(used_by_rule.sum()),
        **check_bound(kept_similarity, reference_similarity, threshold, where),
    }
