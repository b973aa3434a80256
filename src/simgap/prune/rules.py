"""The pruning rules, on similarity columns alone: each gives bool [pool rows], True for a row that is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError

JOINS = ("max", "mean")
# What a matched control may have the same composition of, as the pool's marks name it.
MATCHES = ("class", "style")
# Rows that are looked at together.
BLOCK_ROWS = 4_194_304
BINS = 2**20
# numpy's hypergeometric refuses more.
LARGEST_DRAW = 10**9


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK_ROWS, rows)) for start in range(0, rows, BLOCK_ROWS))


def _bound(threshold: float) -> np.float32:
    """Give the largest fp32 number that is no larger: fp32 margins exceed both or neither."""
    bound = np.float32(threshold)
    return bound if float(bound) <= threshold else np.nextafter(bound, np.float32(-np.inf))


def imagenet_like(
    full: NDArray[np.bool_], margins: Sequence[NDArray[np.float32]], threshold: float
) -> NDArray[np.bool_]:
    """Keep the rows whose stored margin exceeds the threshold for no benchmark (paper, section 4; threshold 0 is the paper's).

    A row is pruned by strictly larger margins only, and there is no limit on how many rows a query prunes. Memory: the
    result, and a block; columns may be mapped.

    Args:
        full: the deduplicated pool, bool [pool rows].
        margins: of each benchmark, fp32 [pool rows].
        threshold: the slack, in cosine.
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
    """Count the rows of full that `imagenet_like` would prune at each threshold, in one pass. Memory: a block."""
    bounds = np.array([_bound(threshold) for threshold in thresholds])
    ascending = np.argsort(bounds)
    # exceeding[i]: rows whose largest margin exceeds i of the bounds.
    exceeding = np.zeros(len(bounds) + 1, np.int64)
    for block in _blocks(len(full)):
        largest = np.max([margin[block] for margin in margins], axis=0)[full[block]]
        exceeding += np.bincount(np.searchsorted(bounds[ascending], largest), minlength=len(exceeding))
    pruned = np.empty(len(bounds), np.int64)
    pruned[ascending] = exceeding[::-1].cumsum()[::-1][1:]
    return pruned.tolist()


def join_similarities(best: Sequence[NDArray[np.float32]], join: str) -> NDArray[np.float64]:
    """Join the best similarities to several benchmarks to one value a row: their `max` or `mean`, float64 [rows]."""
    joined = best[0].astype(np.float64)
    for column in best[1:]:
        joined = np.maximum(joined, column) if join == "max" else joined + column
    return joined / len(best) if join == "mean" else joined


def by_similarity(
    full: NDArray[np.bool_], best: Sequence[NDArray[np.float32]], join: str, keep: int, *, most_similar: bool
) -> NDArray[np.bool_]:
    """Keep exactly `keep` rows of full: the most similar ones (dissimilar-pruned) or the least similar (similar-pruned).

    Ties go to the lower row. Three passes over the columns, which may be mapped: a histogram finds the bin in which the
    bound lies, the values in it give the bound, and the third marks the rows. Memory: the result, a block, and that bin.

    Args:
        full: the deduplicated pool, bool [pool rows].
        best: of each benchmark, fp32 [pool rows], in [-2, 2].
        join: how they are joined, see `join_similarities`.
    """
    result = np.zeros(len(full), np.bool_)
    if keep == 0:
        return result

    def keys(block: slice) -> NDArray[np.float64]:
        """Give what is ranked, the smallest first, of the rows of full in a block."""
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
    """Keep exactly `keep` rows of full, drawn without replacement; the draw depends on the seed.

    How many fall into a block is drawn first, given what the blocks before it took: every set of rows is as likely as
    without blocks. Memory: the result, and a block.

    Raises:
        SimgapError: full has more rows than the numbers for blocks can be drawn for.
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
        raise SimgapError(f"random: full has {rows} rows; a draw is possible from fewer than {LARGEST_DRAW}")
    return rows


def _draw(generator: np.random.Generator, rows: NDArray[np.int64], left: int, keep: int) -> NDArray[np.int64]:
    """Draw those of a block's `rows` that are among the `keep` to draw from them and the `left` rows of later blocks."""
    # Where all rows that are left lie in this block, or none does, their number is no matter of chance.
    count = int(generator.hypergeometric(len(rows), left, keep)) if len(rows) and left else min(keep, len(rows))
    return generator.choice(rows, count, replace=False)


def matched(
    full: NDArray[np.bool_], kept: NDArray[np.bool_], groups: NDArray[np.int32], seed: int
) -> NDArray[np.bool_]:
    """Keep of each group exactly as many rows of full as another split keeps of it, drawn without replacement.

    What `random` does, in each group by itself: a sample stratified by group. Where the other split keeps a whole group,
    so does this. Memory: the result, a block, and two numbers a group.

    Args:
        full: the deduplicated pool, bool [pool rows].
        kept: the rows of full that the other split keeps, bool [pool rows].
        groups: the group of each row, from 0 on, int32 [pool rows].

    Raises:
        SimgapError: full has more rows than the numbers for blocks can be drawn for.
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
        of_rows = groups[block][rows]
        order = np.argsort(of_rows, kind="stable")
        present, firsts = np.unique(of_rows[order], return_index=True)
        for group, members in zip(present, np.split(rows[order], firsts)[1:], strict=True):
            left[group] -= len(members)
            drawn = _draw(generator, members, int(left[group]), int(keep[group]))
            result[block.start + drawn] = True
            keep[group] -= len(drawn)
    return result


def rows_to_keep(keep: Any, of: int, available: int, where: str) -> int:
    """Resolve `keep` to a number of rows: an integer is a count, a float in [0, 1] a fraction of `of`, rounded down.

    Raises:
        SimgapError: it is neither, or more than the `available` rows.
    """
    if (
        isinstance(keep, bool)
        or not isinstance(keep, int | float)
        or keep < 0
        or (isinstance(keep, float) and keep > 1)
    ):
        raise SimgapError(f"{where}: {keep!r} should be a count of rows (an integer) or a fraction in [0.0, 1.0]")
    # As written, not as stored in binary: 0.29 of 100 is 29.
    rows = int(Fraction(str(keep)) * of) if isinstance(keep, float) else keep
    if rows > available:
        raise SimgapError(f"{where}: {keep} is more than the {available} rows of the deduplicated pool")
    return rows
