"""Implement the pruning rules.

Each rule returns an array of bool [pool rows]. A kept row has the value True.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError

# Temporary memory does not grow with the pool, because rules read columns in blocks of this many rows.
BLOCK_ROWS = 4_194_304
# The histogram in `by_similarity` has this many bins. The function collects all values of one bin in memory, and more
# bins make this bin smaller.
BINS = 2**20
# NumPy's hypergeometric distribution accepts only counts below this number.
LARGEST_DRAW = 10**9


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK_ROWS, rows)) for start in range(0, rows, BLOCK_ROWS))


def _bound(threshold: float) -> np.float32:
    """Return the largest fp32 number that is at most `threshold`.

    An fp32 margin exceeds the returned number if and only if the margin exceeds `threshold`.
    """
    bound = np.float32(threshold)
    return bound if float(bound) <= threshold else np.nextafter(bound, np.float32(-np.inf))


def imagenet_like(
    full: NDArray[np.bool_], margins: Sequence[NDArray[np.float32]], threshold: float
) -> NDArray[np.bool_]:
    """Keep the rows of `full` whose margin is at most the threshold for every benchmark.

    The condition is similarity(row, query) - similarity(query, reference) <= threshold for every query. The margin of a
    row is the largest such difference over the queries of a benchmark. Section 4 of the paper defines this rule with
    threshold 0. A row whose margin equals the threshold is kept. A query may prune any number of rows. Memory holds the
    result and one block of rows. The columns may be memory-mapped.

    Args:
        full: Rows of the deduplicated pool, bool [pool rows].
        margins: Margin of each row, one array fp32 [pool rows] for each benchmark.
        threshold: Largest margin of a kept row, a difference of cosine similarities.

    Returns:
        The kept rows, bool [pool rows].
    """
    bound = _bound(threshold)
    keep = full.copy()
    for block in _blocks(len(full)):
        for margin in margins:
            keep[block] &= margin[block] <= bound
    return keep


def rows_pruned(
    full: NDArray[np.bool_], margins: Sequence[NDArray[np.float32]], thresholds: Sequence[float]
) -> list[int]:
    """Count the rows of `full` that `imagenet_like` prunes at each of several thresholds.

    The function reads the columns once. Memory holds one block of rows.

    Args:
        full: Rows of the deduplicated pool, bool [pool rows].
        margins: Margin of each row, one array fp32 [pool rows] for each benchmark.
        thresholds: The thresholds, in any order.

    Returns:
        The number of pruned rows for each threshold, in the order of `thresholds`.
    """
    bounds = np.array([_bound(threshold) for threshold in thresholds])
    ascending = np.argsort(bounds)
    # exceeding[i] counts the rows whose largest margin exceeds exactly i of the thresholds.
    exceeding = np.zeros(len(bounds) + 1, np.int64)
    for block in _blocks(len(full)):
        largest = np.max([margin[block] for margin in margins], axis=0)[full[block]]
        exceeding += np.bincount(np.searchsorted(bounds[ascending], largest), minlength=len(exceeding))
    pruned = np.empty(len(bounds), np.int64)
    pruned[ascending] = exceeding[::-1].cumsum()[::-1][1:]
    return pruned.tolist()


def join_similarities(best: Sequence[NDArray[np.float32]], join: str) -> NDArray[np.float64]:
    """Combine the similarities of each row to several benchmarks into one value.

    Args:
        best: For each benchmark, the highest similarity of each row to a query, fp32 [rows].
        join: `max` or `mean`.

    Returns:
        The maximum or the mean of the similarities of each row, float64 [rows].
    """
    joined = best[0].astype(np.float64)
    for column in best[1:]:
        joined = np.maximum(joined, column) if join == "max" else joined + column
    return joined / len(best) if join == "mean" else joined


def by_similarity(
    full: NDArray[np.bool_], best: Sequence[NDArray[np.float32]], join: str, keep: int, *, most_similar: bool
) -> NDArray[np.bool_]:
    """Keep the `keep` rows of `full` that are most similar or least similar to the benchmarks.

    If similarities are equal, rows with smaller numbers are kept first. The function reads the columns three times. The
    first pass makes a histogram of the similarities and finds the bin that contains the limit between kept and pruned
    rows. The second pass collects the similarities in this bin and finds the limit. The third pass selects the rows.
    Memory holds the result, one block of rows and the similarities in this bin. The columns may be memory-mapped.

    Args:
        full: Rows of the deduplicated pool, bool [pool rows].
        best: For each benchmark, the highest similarity of each row to a query, fp32 [pool rows] in [-2, 2].
        join: How the similarities to several benchmarks become one value, see `join_similarities`.
        keep: Number of rows to keep, at most the number of rows of `full`.
        most_similar: Whether to keep the most similar rows (rule `dissimilar`) or the least similar rows (rule
            `similar`).

    Returns:
        The kept rows, bool [pool rows].
    """
    result = np.zeros(len(full), np.bool_)
    if keep == 0:
        return result

    def keys(block: slice) -> NDArray[np.float64]:
        """Return the sort key of each row of `full` in a block. The rule keeps the rows with the smallest keys."""
        joined = join_similarities([column[block] for column in best], join)[full[block]]
        return -joined if most_similar else joined

    def bins(values: NDArray[np.float64]) -> NDArray[np.int64]:
        return ((values + 2) * (BINS / 4)).astype(np.int64)

    counts = np.zeros(BINS + 1, np.int64)
    for block in _blocks(len(full)):
        counts += np.bincount(bins(keys(block)), minlength=BINS + 1)
    ends = np.cumsum(counts)
    chosen = int(np.searchsorted(ends, keep))
    below = int(ends[chosen] - counts[chosen])
    inside = np.concatenate([values[bins(values) == chosen] for values in map(keys, _blocks(len(full)))])
    bound = np.partition(inside, keep - below - 1)[keep - below - 1]
    ties = keep - below - int((inside < bound).sum())
    for block in _blocks(len(full)):
        values = keys(block)
        stays = values < bound
        equal = np.flatnonzero(values == bound)[:ties]
        ties -= len(equal)
        stays[equal] = True
        rows = np.flatnonzero(full[block])
        result[block.start + rows[stays]] = True
    return result


def random(full: NDArray[np.bool_], keep: int, seed: int) -> NDArray[np.bool_]:
    """Keep exactly `keep` rows of `full`, sampled at random without replacement.

    For each block, the function first samples the number of kept rows. This number depends on how many rows the earlier
    blocks kept. Then the function samples that many rows of the block. So every selection of `keep` rows is equally
    likely for every block size. Memory holds the result and one block of rows.

    Args:
        full: Rows of the deduplicated pool, bool [pool rows].
        keep: Number of rows to keep, at most the number of rows of `full`.
        seed: Seed of the random sample.

    Returns:
        The kept rows, bool [pool rows].

    Raises:
        SimgapError: `full` has `LARGEST_DRAW` rows or more.
    """
    generator = np.random.default_rng(seed)
    result = np.zeros(len(full), np.bool_)
    left = _rows_to_draw_from(full)
    for block in _blocks(len(full)):
        rows = np.flatnonzero(full[block])
        left -= len(rows)
        drawn = _draw(generator, rows, left, keep)
        result[block.start + drawn] = True
        keep -= len(drawn)
    return result


def _rows_to_draw_from(full: NDArray[np.bool_]) -> int:
    rows = int(full.sum())
    if rows >= LARGEST_DRAW:
        raise SimgapError(
            f"full has {rows} rows; a random split needs fewer than {LARGEST_DRAW} rows. Use a smaller pool, or deduplicate more"
        )
    return rows


def _draw(generator: np.random.Generator, rows: NDArray[np.int64], left: int, keep: int) -> NDArray[np.int64]:
    """Sample the rows of the current block in a random sample over this block and all later blocks.

    Args:
        generator: The random generator.
        rows: Candidate rows of the current block, int64 [n].
        left: Number of candidate rows in later blocks.
        keep: Number of rows to sample from the current block and all later blocks together.

    Returns:
        The sampled rows of the current block in random order, int64 [m].
    """
    # If this block has no candidates, or no candidates are left in later blocks, the count is certain. It needs no
    # random number.
    count = int(generator.hypergeometric(len(rows), left, keep)) if len(rows) and left else min(keep, len(rows))
    return generator.choice(rows, count, replace=False)


def matched(
    full: NDArray[np.bool_], kept: NDArray[np.bool_], groups: NDArray[np.int32], seed: int
) -> NDArray[np.bool_]:
    """Keep random rows of `full`, with as many rows of each group as another split keeps.

    This is a stratified sample: the function applies the method of `random` to each group. If the other split keeps all
    rows of a group, the new split keeps all rows of this group too. Memory holds the result, one block of rows and two
    numbers for each group.

    Args:
        full: Rows of the deduplicated pool, bool [pool rows].
        kept: Rows of `full` that the other split keeps, bool [pool rows].
        groups: Group of each row, numbered from 0, int32 [pool rows].
        seed: Seed of the random sample.

    Returns:
        The kept rows, bool [pool rows].

    Raises:
        SimgapError: `full` has `LARGEST_DRAW` rows or more.
    """
    generator = np.random.default_rng(seed)
    result = np.zeros(len(full), np.bool_)
    _rows_to_draw_from(full)
    count = int(groups.max(initial=-1)) + 1
    left, keep = np.zeros((2, count), np.int64)
    for block in _blocks(len(full)):
        left += np.bincount(groups[block][full[block]], minlength=count)
        keep += np.bincount(groups[block][kept[block]], minlength=count)
    for block in _blocks(len(full)):
        rows = np.flatnonzero(full[block])
        row_groups = groups[block][rows]
        order = np.argsort(row_groups, kind="stable")
        present, firsts = np.unique(row_groups[order], return_index=True)
        for group, members in zip(present, np.split(rows[order], firsts)[1:], strict=True):
            left[group] -= len(members)
            drawn = _draw(generator, members, int(left[group]), int(keep[group]))
            result[block.start + drawn] = True
            keep[group] -= len(drawn)
    return result


def rows_to_keep(keep: Any, of: int, available: int, where: str) -> int:
    """Convert the parameter `keep` to a number of rows.

    Args:
        keep: A number of rows (an integer), or a fraction of `of` (a float in [0, 1]). The product of the fraction and
            `of` is rounded down.
        of: Number of rows by which a fraction is multiplied.
        available: Largest allowed number of rows.
        where: Name of the parameter, for error messages.

    Returns:
        The number of rows to keep.

    Raises:
        SimgapError: `keep` is neither a number of rows nor a fraction in [0, 1], or the number of rows exceeds
            `available`.
    """
    if (
        isinstance(keep, bool)
        or not isinstance(keep, int | float)
        or keep < 0
        or (isinstance(keep, float) and keep > 1)
    ):
        raise SimgapError(f"{where} is {keep!r}; it must be a number of rows (an integer) or a fraction in [0.0, 1.0]")
    # The fraction is computed from its decimal text. The float 0.29 is slightly below 0.29, so the float product with
    # 100 would be rounded down to 28 instead of 29.
    rows = int(Fraction(str(keep)) * of) if isinstance(keep, float) else keep
    if rows > available:
        raise SimgapError(f"{where} is {keep}; it must be at most {available}, the rows of the deduplicated pool")
    return rows
