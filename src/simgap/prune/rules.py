"""The pruning rules. Each returns bool [pool rows], True for a row that is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError

# Rules read columns in blocks of this many rows, so that memory does not grow with the pool.
BLOCK_ROWS = 4_194_304
BINS = 2**20
# NumPy's hypergeometric distribution refuses larger numbers.
LARGEST_DRAW = 10**9


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK_ROWS, rows)) for start in range(0, rows, BLOCK_ROWS))


def _bound(threshold: float) -> np.float32:
    """Return the largest fp32 number that is at most `threshold`.

    An fp32 margin exceeds this number if and only if it exceeds `threshold`.
    """
    bound = np.float32(threshold)
    return bound if float(bound) <= threshold else np.nextafter(bound, np.float32(-np.inf))


def imagenet_like(
    full: NDArray[np.bool_], margins: Sequence[NDArray[np.float32]], threshold: float
) -> NDArray[np.bool_]:
    """Keep the rows of full whose margin does not exceed the threshold for any benchmark.

    This is the rule of the paper (section 4), which uses threshold 0. A row whose margin equals the threshold is kept. A
    query may prune any number of rows. Memory: the result and a block; columns may be mapped.

    Args:
        full: the rows of the deduplicated pool, bool [pool rows].
        margins: for each benchmark, the stored margins, fp32 [pool rows].
        threshold: the slack, a difference of cosine similarities.
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
    """Count the rows of full that `imagenet_like` prunes at each of several thresholds.

    This takes one pass over the columns and the memory of a block.
    """
    bounds = np.array([_bound(threshold) for threshold in thresholds])
    ascending = np.argsort(bounds)
    # exceeding[i] counts the rows whose largest margin exceeds exactly i of the bounds.
    exceeding = np.zeros(len(bounds) + 1, np.int64)
    for block in _blocks(len(full)):
        largest = np.max([margin[block] for margin in margins], axis=0)[full[block]]
        exceeding += np.bincount(np.searchsorted(bounds[ascending], largest), minlength=len(exceeding))
    pruned = np.empty(len(bounds), np.int64)
    pruned[ascending] = exceeding[::-1].cumsum()[::-1][1:]
    return pruned.tolist()


def join_similarities(best: Sequence[NDArray[np.float32]], join: str) -> NDArray[np.float64]:
    """Join the similarities to several benchmarks by `max` or `mean`: one value for each row, float64 [rows].

    Args:
        best: for each benchmark, the highest similarity of each row to a query, fp32 [rows].
        join: `max` or `mean`.
    """
    joined = best[0].astype(np.float64)
    for column in best[1:]:
        joined = np.maximum(joined, column) if join == "max" else joined + column
    return joined / len(best) if join == "mean" else joined


def by_similarity(
    full: NDArray[np.bool_], best: Sequence[NDArray[np.float32]], join: str, keep: int, *, most_similar: bool
) -> NDArray[np.bool_]:
    """Keep exactly `keep` rows of full, those most similar or those least similar to the benchmarks.

    If similarities are equal, the lower row is kept. The columns may be mapped and are read three times. The first pass
    counts values in a histogram, to find the bin of the last value that is kept. The second pass collects the values of that
    bin, and the third selects the rows. Memory: the result, a block and the values of that bin.

    Args:
        full: the rows of the deduplicated pool, bool [pool rows].
        best: for each benchmark, the highest similarity of each row to a query, fp32 [pool rows] in [-2, 2].
        join: how the benchmarks are joined, see `join_similarities`.
        keep: the number of rows to keep, at most the rows of full.
        most_similar: keep the most similar rows (dissimilar-pruned); else the least similar (similar-pruned).
    """
    result = np.zeros(len(full), np.bool_)
    if keep == 0:
        return result

    def keys(block: slice) -> NDArray[np.float64]:
        """Return the sort keys of the rows of full in a block; the smallest keys are kept."""
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
    """Keep exactly `keep` rows of full, drawn at random without replacement.

    For each block, the number of its rows is drawn first, given the numbers of the blocks before it. So every set of rows is
    as likely as without blocks. Memory: the result and a block.

    Args:
        full: the rows of the deduplicated pool, bool [pool rows].
        keep: the number of rows to keep, at most the rows of full.
        seed: the seed of the draw.

    Raises:
        SimgapError: The split full has `LARGEST_DRAW` rows or more.
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
        raise SimgapError(f"full has {rows} rows; a random split can be drawn from fewer than {LARGEST_DRAW} rows")
    return rows


def _draw(generator: np.random.Generator, rows: NDArray[np.int64], left: int, keep: int) -> NDArray[np.int64]:
    """Draw `keep` rows from a block's `rows` and the `left` rows of later blocks; return those of the block."""
    # If all remaining rows are in this block, or none is, their number does not depend on chance.
    count = int(generator.hypergeometric(len(rows), left, keep)) if len(rows) and left else min(keep, len(rows))
    return generator.choice(rows, count, replace=False)


def matched(
    full: NDArray[np.bool_], kept: NDArray[np.bool_], groups: NDArray[np.int32], seed: int
) -> NDArray[np.bool_]:
    """Keep exactly as many rows of each group as another split, drawn at random without replacement.

    This is a sample stratified by group: `random` is applied to each group. If the other split keeps all rows of a group, so
    does this one. Memory: the result, a block and two numbers for each group.

    Args:
        full: the rows of the deduplicated pool, bool [pool rows].
        kept: the rows of full that the other split keeps, bool [pool rows].
        groups: the group of each row, numbered from 0, int32 [pool rows].
        seed: the seed of the draw.

    Raises:
        SimgapError: The split full has `LARGEST_DRAW` rows or more.
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
    """Return the number of rows that the parameter `keep` means.

    Args:
        keep: an integer is a number of rows; a float in [0, 1] is a fraction of `of`, rounded down.
        of: the number of rows that a fraction refers to.
        available: the largest number of rows that is possible.
        where: the name of the parameter, for error messages.

    Raises:
        SimgapError: `keep` is neither of the two, or means more than `available` rows.
    """
    if (
        isinstance(keep, bool)
        or not isinstance(keep, int | float)
        or keep < 0
        or (isinstance(keep, float) and keep > 1)
    ):
        raise SimgapError(f"{where} is {keep!r}; it must be a number of rows (an integer) or a fraction in [0.0, 1.0]")
    # The decimal number as written counts, not its binary value: 0.29 of 100 is 29.
    rows = int(Fraction(str(keep)) * of) if isinstance(keep, float) else keep
    if rows > available:
        raise SimgapError(f"{where} is {keep}; it must be at most {available}, the rows of the deduplicated pool")
    return rows
