"""Prune the deduplicated pool by a rule and write the split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.prune import rules
from simgap.store.columns import Similarity
from simgap.store.split import KEEP_FILE, Split, is_degenerate, read_keep, read_split, write_split


def _read_full(folder: Path) -> tuple[Split, NDArray[np.bool_]]:
    full = read_split(folder)
    return full, read_keep(folder / KEEP_FILE, full.pool_rows)


def _columns(full: Split, similarity: Path, benchmarks: list[str], name: str) -> list[NDArray[np.float32]]:
    return [Similarity(similarity / benchmark, full.row_order).column(name) for benchmark in benchmarks]


def _finish(
    full: Split,
    keep: NDArray[np.bool_],
    out: Path,
    *,
    rule: str,
    parameters: dict[str, Any],
    kept_description: str,
    reference_rows: bool,
    benchmarks: Sequence[str] = (),
    threshold: float | None = None,
    controls: str | None = None,
) -> dict[str, Any]:
    split = Split(
        rule=rule,
        parameters=parameters,
        benchmarks=list(benchmarks),
        threshold=threshold,
        kept=int(keep.sum()),
        pool_rows=full.pool_rows,
        kept_description=kept_description,
        # A split must have training data. If it keeps no pool rows, it uses the reference, even if the params exclude
        # the reference.
        reference_rows=reference_rows or not keep.any(),
        row_order=full.row_order,
        controls=controls,
    )
    return {
        **write_split(split, keep, out),
        "read": full.kept,
        "dropped/pruned": full.kept - split.kept,
        "kept_share_of_full": split.kept / full.kept if full.kept else 0.0,
        "degenerate": is_degenerate(split, full.kept),
    }


def prune_imagenet_like(
    full_folder: Path, similarity: Path, benchmarks: list[str], threshold: float, reference_rows: bool, out: Path
) -> dict[str, Any]:
    """Write an imagenet-like split and return its metrics.

    The split keeps a row of `full` if similarity(row, query) - similarity(query, reference) <= threshold for every
    query. The metric `degenerate` is true if the split keeps less than 20% of the rows of `full`.

    Args:
        full_folder: Folder of the split `full`.
        similarity: Folder of the similarity columns of all benchmarks.
        benchmarks: Names of the benchmarks whose queries the rule uses.
        threshold: Largest allowed value of the difference.
        reference_rows: Whether the reference joins the training data.
        out: Folder to write.

    Returns:
        The value of each metric by name.

    Raises:
        SimgapError: The similarity columns were computed for other pool rows.
    """
    full, full_keep = _read_full(full_folder)
    keep = rules.imagenet_like(full_keep, _columns(full, similarity, benchmarks, "margin"), threshold)
    return _finish(
        full,
        keep,
        out,
        rule="imagenet-like",
        parameters={"benchmarks": benchmarks, "threshold": threshold},
        kept_description="rows that exceed no query's similarity to the reference by more than the threshold",
        reference_rows=reference_rows,
        benchmarks=benchmarks,
        threshold=threshold,
    )


def prune_by_similarity(
    full_folder: Path,
    similarity: Path,
    benchmarks: list[str],
    join: str,
    keep_rows: int | float,
    reference_rows: bool,
    out: Path,
    *,
    most_similar: bool,
) -> dict[str, Any]:
    """Write a split of the most or least similar rows to the benchmarks, and return its metrics.

    Args:
        full_folder: Folder of the split `full`.
        similarity: Folder of the similarity columns of all benchmarks.
        benchmarks: Names of the benchmarks whose queries the rule uses.
        join: How the similarities to several benchmarks become one value, `max` or `mean`.
        keep_rows: Number of rows to keep (an integer), or fraction of the rows of `full` (a float).
        reference_rows: Whether the reference joins the training data.
        out: Folder to write.
        most_similar: Whether to keep the most similar rows (rule `dissimilar`) or the least similar rows (rule
            `similar`).

    Returns:
        The value of each metric by name.

    Raises:
        SimgapError: `keep_rows` exceeds the rows of `full`, or the similarity columns were computed for other pool
            rows.
    """
    full, full_keep = _read_full(full_folder)
    rule = "dissimilar" if most_similar else "similar"
    count = rules.rows_to_keep(keep_rows, full.kept, full.kept, f"prune.{rule}.{out.name}.keep")
    best = _columns(full, similarity, benchmarks, "best")
    keep = rules.by_similarity(full_keep, best, join, count, most_similar=most_similar)
    return _finish(
        full,
        keep,
        out,
        rule=rule,
        parameters={"benchmarks": benchmarks, "join": join, "keep": keep_rows},
        kept_description=f"the {count} rows {'most' if most_similar else 'least'} similar to the benchmarks",
        reference_rows=reference_rows,
        benchmarks=benchmarks,
    )


def prune_random(
    full_folder: Path, size_of: str, size: int, keep_rows: int | float, seed: int, reference_rows: bool, out: Path
) -> dict[str, Any]:
    """Write a split of random rows and return its metrics.

    Args:
        full_folder: Folder of the split `full`, from which the rows are sampled.
        size_of: Name of the split whose number of rows is `size`.
        size: Number of pool rows that the split `size_of` keeps.
        keep_rows: Number of rows to keep (an integer), or fraction of `size` (a float).
        seed: Seed of the random sample.
        reference_rows: Whether the reference joins the training data.
        out: Folder to write.

    Returns:
        The value of each metric by name.

    Raises:
        SimgapError: `keep_rows` exceeds the rows of `full`.
    """
    full, full_keep = _read_full(full_folder)
    count = rules.rows_to_keep(keep_rows, size, full.kept, f"prune.random.{out.name}.keep")
    keep = rules.random(full_keep, count, seed)
    return _finish(
        full,
        keep,
        out,
        rule="random",
        parameters={"size_of": size_of, "keep": keep_rows, "seed": seed},
        kept_description=f"{count} rows drawn at random" if count else "no pool rows: only the reference",
        reference_rows=reference_rows,
        controls=size_of if count == size and size_of != "full" else None,
    )


def prune_matched(
    full_folder: Path,
    size_of: str,
    controlled: Path,
    groups: NDArray[np.int32],
    match: str,
    seed: int,
    reference_rows: bool,
    out: Path,
) -> dict[str, Any]:
    """Write a control split of random rows, and return its metrics.

    The control keeps as many rows of each group as the split `size_of` keeps.

    Args:
        full_folder: Folder of the split `full`, from which the rows are sampled.
        size_of: Name of the split for which the new split is a control.
        controlled: The file `keep.npy` of the split `size_of`.
        groups: Group of each pool row, int32 [pool rows].
        match: Meaning of the groups, `class` or `style`.
        seed: Seed of the random sample.
        reference_rows: Whether the reference joins the training data.
        out: Folder to write.

    Returns:
        The value of each metric by name.

    Raises:
        SimgapError: The split `size_of` keeps rows that are not in `full`.
    """
    full, full_keep = _read_full(full_folder)
    kept = read_keep(controlled, full.pool_rows)
    if (kept & ~full_keep).any():
        raise SimgapError(
            f"{controlled}: keeps rows that are not in {full_folder}; run `dvc repro` to make both splits again"
        )
    keep = rules.matched(full_keep, kept, groups, seed)
    return _finish(
        full,
        keep,
        out,
        rule="matched",
        parameters={"size_of": size_of, "match": match, "seed": seed},
        kept_description=f"{int(keep.sum())} rows drawn at random, as many of each {match} as {size_of} keeps",
        reference_rows=reference_rows,
        controls=size_of,
    )
