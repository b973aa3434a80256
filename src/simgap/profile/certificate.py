"""Check the imagenet-like rule by plain float64 products.

This module shares no code with the similarity engine, so that an error in the engine cannot hide from the check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.store.columns import Similarity
from simgap.store.embeddings import Embeddings

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# With more pairs of a kept row and a query than this, only a sample of the queries is checked.
PAIRS = 10**10
# Products with all queries are computed for this many rows at a time, because float64 needs much memory.
BLOCK_ROWS = 1024
SAMPLE_SEED = 0


def summary(values: NDArray[Any], name: str) -> dict[str, float]:
    """Return the mean, the smallest value and the quantiles of `values` as metrics whose keys start with `name`."""
    values = values.astype(np.float64)
    return {
        f"{name}/mean": float(values.mean()),
        f"{name}/smallest": float(values.min()),
        **{f"{name}/quantile_{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)},
    }


def queries_to_check(used_by_rule: NDArray[np.bool_], kept_rows: int) -> NDArray[np.int64]:
    """Choose the queries to check: all queries of the rule, or a seeded sample if these make more than `PAIRS` pairs.

    The sample is as large as `PAIRS` allows and has at least one query.

    Args:
        used_by_rule: bool [queries].
        kept_rows: Number of rows that the split keeps.

    Returns:
        Query numbers in ascending order.
    """
    queries = np.flatnonzero(used_by_rule)
    if len(queries) * kept_rows <= PAIRS:
        return queries
    count = max(1, PAIRS // kept_rows)
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(queries, count, replace=False))


def nearest_similarity(rows: Embeddings, keep: NDArray[np.bool_], queries: NDArray[np.float16]) -> NDArray[np.float64]:
    """Compute the nearest-neighbour similarity s_q of each query to the kept rows.

    Memory: the queries, a block of rows and their products, all in float64.

    Args:
        rows: Embeddings of the rows.
        keep: bool [rows].
        queries: fp16 [queries, dim].

    Returns:
        float64 [queries], exact; -inf if no row is kept.
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
    """Check that no query is closer to a kept row than to the reference by more than the threshold.

    The difference is rounded to fp32, as stored margins are, so that the rule and the check use the same bound.

    Args:
        kept_similarity: s_q of the kept rows, float64 [queries].
        reference_similarity: s_q of the reference, float64 [queries].
        threshold: Threshold of the rule.
        where: Split and benchmark, for the error message.

    Returns:
        Metrics of the check, with the slack that is left: threshold minus difference.

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
    """Check the rule's queries against the kept rows and the reference.

    Memory: see `nearest_similarity`.

    Args:
        keep: bool [pool rows].
        threshold: Threshold of the rule.
        pool: Embeddings of the pool.
        reference: Embeddings of the reference.
        benchmark: Embeddings of the benchmark.
        similarity: Stored similarity of the pool to the benchmark.
        where: Split and benchmark, for error messages.

    Returns:
        Metrics. `certificate/queries` is the number of queries of the rule, and `certificate/queries_checked` the number of
        checked ones. `certificate/sampled` is true if only a sample was checked.

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
