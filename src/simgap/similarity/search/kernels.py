"""Define inner loops that Numba compiles to machine code.

NumPy would be slower. It would read the same memory several times, and would hold Python's global interpreter lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

# `collect` tests the products of a row in chunks of this many products. One fast test finds whether any product of the
# chunk may matter. Only then does the loop test each product of the chunk alone.
CHUNK = 64

Function = TypeVar("Function", bound=Callable[..., Any])


class Pairs(NamedTuple):
    """Pairs of a row and a query, with one value for each pair.

    Attributes:
        row: Row of each pair, int32 [capacity].
        query: Query of each pair, int32 [capacity].
        value: Value of each pair, fp32 [capacity].
    """

    row: NDArray[np.int32]
    query: NDArray[np.int32]
    value: NDArray[np.float32]


def _compiled(function: Function) -> Function:
    """Return a compiled version of a function. All processes of a machine share the cached machine code.

    The compiler may change the order of additions. Values may be infinite, but must not be NaN.
    """
    allowed = {"nnan", "nsz", "reassoc", "contract"}
    return cast(Function, njit(cache=True, nogil=True, fastmath=allowed)(function))


@_compiled
def _widen(halves: Any, bits: Any) -> None:
    for place in range(len(halves)):
        half = np.uint32(halves[place])
        bits[place] = ((half & np.uint32(0x8000)) << np.uint32(16)) | ((half & np.uint32(0x7FFF)) << np.uint32(13))


def to_single(rows: NDArray[np.float16]) -> NDArray[np.float32]:
    """Convert fp16 values to fp32. This function is several times faster than the conversion by NumPy.

    The conversion of finite values is exact. Infinity and NaN become large finite values.
    """
    singles = np.empty(rows.shape, np.float32)
    _widen(np.ascontiguousarray(rows).reshape(-1).view(np.uint16), singles.reshape(-1).view(np.uint32))
    # `_widen` copies the exponent bits, but the exponent bias is 15 in fp16 and 127 in fp32. This factor corrects the
    # difference of 112.
    singles *= np.float32(2.0**112)
    return singles


@_compiled
def sum_pairs(rows: Any, queries: Any, row: Any, query: Any, out: Any) -> None:
    """Compute the inner product of each pair of a row and a query, with float64 sums.

    The function writes the inner product of rows[row[i]] and queries[query[i]] to out[i], for each pair i.
    """
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
    """Find the undecided pairs in a block of products, and add these pairs to `near`, `best` and `margin`.

    Args:
        product: Products of the tile's rows and a block of queries, fp32 [rows, queries].
        first_query: Number of the block's first query.
        shift: Reference similarity of each query, fp32 [queries]. A product minus the shift is a margin.
        slack: A pair is undecided if its value is at most this far below the largest value of its row.
        near_bound: Bound of each query, fp32 [queries]. A pair whose product reaches this bound is added to `near`.
        best_bound: Bound of each row, fp32 [rows]. A pair whose product reaches this bound is added to `best`. The
            function raises the bounds in place. In the end, a bound is the largest product of the row minus the slack.
        margin_bound: Bound of each row, fp32 [rows]. A pair whose product minus the shift reaches this bound is added
            to `margin`. The function raises the bounds in the same way as `best_bound`.
        near: `Pairs` to extend. After its collected pairs, it must have space for all pairs of the block.
        best: `Pairs` to extend, with the same space as `near`.
        margin: `Pairs` to extend, with the same space as `near`.
        counts: Number of collected pairs in `near`, `best` and `margin`, int64 [3]; updated in place.
    """
    near_count, best_count, margin_count = counts
    rows, queries = product.shape
    for row in range(rows):
        products, lowest, lowest_shifted = product[row], best_bound[row], margin_bound[row]
        for start in range(0, queries, CHUNK):
            stop = min(queries, start + CHUNK)
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
    """Update the k largest values of each query with the values of new pairs.

    The function inserts one pair after the other.

    Args:
        query: Query of each new pair, [pairs].
        row: Row of each new pair, [pairs].
        value: Value of each new pair, [pairs].
        largest: The k largest values of each query, [queries, k], in descending order; updated in place. A new value
            comes after an equal value.
        largest_row: Row of each value in `largest`, [queries, k]; updated in place.
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
