"""Define Triton kernels that compute products on a GPU. The kernels write only the needed values to memory."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def write_maxima(
    rows,
    queries,
    shift,
    largest,
    largest_shifted,
    largest_of_query,
    row_count,
    query_count,
    rule_count,
    dim,
    ROWS: tl.constexpr,
    QUERIES: tl.constexpr,
    DIM: tl.constexpr,
):
    """Multiply a block of rows by a block of queries, and write only the largest products.

    For each row, the kernel writes two maxima over the rule queries of the block: the largest product, and the largest
    product minus `shift`. For each query, the kernel writes the largest product over the rows of the block.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    query = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    place = tl.arange(0, DIM)
    product = tl.zeros((ROWS, QUERIES), tl.float32)
    for start in range(0, dim, DIM):
        inside = start + place < dim
        left = tl.load(
            rows + row[:, None].to(tl.int64) * dim + start + place,
            mask=(row < row_count)[:, None] & inside,
            other=0.0,
        )
        right = tl.load(
            queries + query[:, None].to(tl.int64) * dim + start + place,
            mask=(query < query_count)[:, None] & inside,
            other=0.0,
        )
        product += tl.dot(left, tl.trans(right))
    used_by_rule = (query < rule_count)[None, :]
    shifted = product - tl.load(shift + query, mask=query < rule_count, other=0.0)[None, :]
    none = float("-inf")
    at = row.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    tl.store(largest + at, tl.max(tl.where(used_by_rule, product, none), axis=1), mask=row < row_count)
    tl.store(largest_shifted + at, tl.max(tl.where(used_by_rule, shifted, none), axis=1), mask=row < row_count)
    query_maximum = tl.max(tl.where((row < row_count)[:, None], product, none), axis=0)
    tl.store(largest_of_query + tl.program_id(0) * query_count + query, query_maximum, mask=query < query_count)


@triton.jit
def write_products(vectors, others, vector, block, out, other_count, dim, OTHERS: tl.constexpr, DIM: tl.constexpr):
    """Write the products of one vector and a block of other vectors, in fp32.

    The last block may contain fewer vectors than the other blocks. Its missing products are -inf.
    """
    pair = tl.program_id(0)
    this = tl.load(vector + pair).to(tl.int64)
    other = tl.load(block + pair).to(tl.int64) * OTHERS + tl.arange(0, OTHERS)
    place = tl.arange(0, DIM)
    product = tl.zeros((OTHERS,), tl.float32)
    for start in range(0, dim, DIM):
        inside = start + place < dim
        left = tl.load(vectors + this * dim + start + place, mask=inside, other=0.0).to(tl.float32)
        right = tl.load(
            others + other[:, None] * dim + start + place, mask=(other < other_count)[:, None] & inside, other=0.0
        ).to(tl.float32)
        product += tl.sum(left[None, :] * right, axis=1)
    product = tl.where(other < other_count, product, float("-inf"))
    tl.store(out + pair.to(tl.int64) * OTHERS + tl.arange(0, OTHERS), product)
