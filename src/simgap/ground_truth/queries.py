"""Find the benchmark queries that pruning rules use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simgap.store.columns import Similarity
from simgap.store.embeddings import Embeddings


def rule_query_keys(embeddings: Path, similarity: Path, benchmarks: Sequence[str]) -> dict[str, set[str]]:
    """Return the keys of the benchmark queries that pruning rules use.

    Args:
        embeddings: Folder of the embeddings of all sets.
        similarity: Folder of the similarity columns of all benchmarks.
        benchmarks: Names of the benchmarks.

    Returns:
        The keys of the used queries for each benchmark, by the name of the benchmark.

    Raises:
        SimgapError: A file is missing or damaged.
    """
    keys = {}
    for benchmark in benchmarks:
        used = Similarity(similarity / benchmark).queries(["used_by_rule"]).column("used_by_rule")
        column = Embeddings(embeddings / benchmark).metadata(["key"]).column("key")
        keys[benchmark] = set(column.filter(used).to_pylist())
    return keys
