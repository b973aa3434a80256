"""Inner loops, compiled by Numba: numpy would walk over the same memory several times, and hold the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Products that are looked at together; each by itself only where one of them matters.
RUN = 64

Function = TypeVar("Function", bound=Callable[..., Any])


class Pairs(NamedTuple):
    """Pairs (row, query), int32 [room], with a value, fp32 [room]."""

    row: NDArray[np.int32]
    query: NDArray[np.int32]
    value: NDArray[np.float32]


def _compiled(function: Function) -> Function:
    """Compile, once for all processes of a machine. Sums may be taken in any order; values may be infinite, but no NaN."""
    allowed = {"nnan", "nsz", "reassoc", "contract"}
    return cast(Function, njit(cache=True, nogil=True, fastmath=allowed)(function))


@_compiled
def _widen(halves: Any, bits: Any) -> None:
    for place in range(len(halves)):
        half = np.uint32(halves[place])
        bits[place] = ((half & np.uint32(0x8000)) << np.uint32(16)) | ((half & np.uint32(0x7FFF)) << np.uint32(13))


def to_single(rows: NDArray[np.float16]) -> NDArray[np.float32]:
    """Convert finite fp16 values to fp32, exactly and several times as fast as numpy; infinite ones and NaN become large."""
    singles = np.empty(rows.shape, np.float32)
    _widen(np.ascontiguousarray(rows).reshape(-1).view(np.uint16), singles.reshape(-1).view(np.uint32))
    # The exponents of fp16 and fp32 are counted from 15 and from 127.
    singles *= np.float32(2.0**112)
    return singles


@_compiled
def sum_pairs(rows: Any, queries: Any, row: Any, query: Any, out: Any) -> None:
    """Write to `out` the inner products, summed in float64, of the pairs (rows[row[i]], queries[query[i]])."""
    for pair in range(len(row)):
        left, right = rows[row[pair]], queries[query[pair]]
        total = 0.0
        for place in range(len(left)):
            total += np.float64(left[place]) * np.float64(right[place])
        out[pair] = total


@_compiled
def collect(
    product: Any,
    first_query: int,
    shift: Any,
    slack: Any,
    near_bound: Any,
    best_bound: Any,
    margin_bound: Any,
    near: Any,
    best: Any,
    margin: Any,
    counts: Any,
) -> None:
    """Collect from a block of products, fp32 [rows, queries] from `first_query` on, the pairs that may matter.

    Args:
        shift: fp32 [queries], what is taken off a product where margins are compared.
        slack: how far below the largest of its row a pair may lie.
        near_bound: fp32 [queries]: pairs that reach the bound of their query go to `near`.
        best_bound, margin_bound: fp32 [rows]: products, shifted products that reach the bound of their row go to `best`,
            `margin`. Bounds are raised on the way, and end as the largest less the slack.
        near, best, margin: `Pairs` with room for a block after `counts`, int64 [3], which is raised.
    """
    near_count, best_count, margin_count = counts
    rows, queries = product.shape
    for row in range(rows):
        products, lowest, lowest_shifted = product[row], best_bound[row], margin_bound[row]
        for start in range(0, queries, RUN):
            stop = min(queries, start + RUN)
            hit = False
            for q in range(start, stop):
                value = products[q]
                hit |= (value >= near_bound[q]) | (value >= lowest) | (value - shift[q] >= lowest_shifted)
            if not hit:
                continue
            for q in range(start, stop):
                value = products[q]
                shifted = value - shift[q]
                if value >= near_bound[q]:
                    near.row[near_count], near.query[near_count], near.value[near_count] = row, first_query + q, value
                    near_count += 1
                if value >= lowest:
                    best.row[best_count], best.query[best_count], best.value[best_count] = row, first_query + q, value
                    best_count += 1
                    lowest = max(lowest, value - slack)
                if shifted >= lowest_shifted:
                    margin.row[margin_count], margin.query[margin_count] = row, first_query + q
                    margin.value[margin_count] = shifted
                    margin_count += 1
                    lowest_shifted = max(lowest_shifted, shifted - slack)
        best_bound[row], margin_bound[row] = lowest, lowest_shifted
    counts[0], counts[1], counts[2] = near_count, best_count, margin_count


@_compiled
def insert(query: Any, row: Any, value: Any, largest: Any, largest_row: Any) -> None:
    """Insert pairs, one after the other, into the k largest values of their query, [queries, k], and their rows.

    Values descend; one that equals another goes behind it.
    """
    last = largest.shape[1] - 1
    for pair in range(len(query)):
        values, rows = largest[query[pair]], largest_row[query[pair]]
        if value[pair] <= values[last]:
            continue
        place = last
        while place > 0 and values[place - 1] < value[pair]:
            values[place], rows[place] = values[place - 1], rows[place - 1]
            place -= 1
        values[place], rows[place] = value[pair], row[pair]
