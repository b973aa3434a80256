"""Check the imagenet-like rule by plain float64 products, with no code of the engine whose columns the rules read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.store.columns import Similarity
from simgap.store.embeddings import Embeddings

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Pairs of a kept row and a query up to which every query is checked.
PAIRS = 10**10
# Rows whose products with all queries are held in float64.
BLOCK_ROWS = 1024
SAMPLE_SEED = 0


def summary(values: NDArray[Any], name: str) -> dict[str, float]:
    """Give mean, smallest and quantiles of values as metrics."""
    values = values.astype(np.float64)
    return {
        f"{name}/mean": float(values.mean()),
        f"{name}/smallest": float(values.min()),
        **{f"{name}/quantile_{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)},
    }


def queries_to_check(used_by_rule: NDArray[np.bool_], kept_rows: int) -> NDArray[np.int64]:
    """Give the queries to check, ascending: all of the rule's, or a seeded sample where they make more than `PAIRS` pairs.

    The sample is of as many as make no more, and of one at least.
    """
    queries = np.flatnonzero(used_by_rule)
    if len(queries) * kept_rows <= PAIRS:
        return queries
    count = max(1, PAIRS // kept_rows)
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(queries, count, replace=False))


def nearest_similarity(rows: Embeddings, keep: NDArray[np.bool_], queries: NDArray[np.float16]) -> NDArray[np.float64]:
    """Give s_q of the kept rows for each query, float64 [queries], exact; -inf where no row is kept.

    Memory: in float64 the queries, a block of rows, and their products.
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
    """Check that no kept row is closer to a query than the reference is, plus the threshold; give the slack left.

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
    """Check the queries that a rule saw against kept rows and reference, and give the metrics.

    `certificate/queries` counts the rule's queries, `certificate/queries_checked` those that were checked, and
    `certificate/sampled` says whether they are fewer. Memory: see `nearest_similarity`.

    Raises:
        SimgapError: a query is violated, or its stored reference similarity is not the reference's.
    """
    table = similarity.queries(["used_by_rule", "reference_similarity"])
    used_by_rule = table.column("used_by_rule").to_numpy()
    checked = queries_to_check(used_by_rule, int(keep.sum()))
    queries = benchmark.read()[checked]
    in_reference = nearest_similarity(reference, np.ones(reference.rows, np.bool_), queries)
    stored = table.column("reference_similarity").to_numpy()[checked]
    wrong = int((stored != in_reference.astype(np.float32)).sum())
    if wrong:
        raise SimgapError(
            f"{where}: {wrong} of {len(checked)} reference similarities in {similarity.folder} are not the reference's; "
            "measure it again"
        )
    in_kept = nearest_similarity(pool, keep, queries)
    return {
        "certificate/queries": int(used_by_rule.sum()),
        "certificate/sampled": len(checked) < int(used_by_rule.sum()),
        **check_bound(in_kept, in_reference, threshold, where),
    }
