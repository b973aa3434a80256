"""Search on a GPU with fp16 products and fp32 sums.

A Triton kernel multiplies a block of rows by a block of queries. It writes only the largest product of each row and of
each query in the block. If this maximum reaches the bound, the engine computes the products of the row or query with
the block again. The engine then keeps the pairs whose product reaches the bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.similarity.search.engines.engine import Engine, RowResults, SearchRequest
from simgap.similarity.search.engines.triton_kernels import write_maxima, write_products
from simgap.similarity.search.exact import NOT_UNIT_NORM, screening_error, slack
from simgap.similarity.search.nearest import Candidates

BLOCK_ROWS = 128
BLOCK_QUERIES = 128
BLOCK_DIM = 64
# Exact similarities are computed for this many pairs at a time. Memory grows with this number, because each pair needs two
# float64 vectors.
PAIRS = 16384
# If a tile does not fit in the memory of the GPU, later tiles become smaller. They never get fewer rows than this
# number.
SMALLEST_TILE = 8192


def _first_largest(row: torch.Tensor, value: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the position of the largest value of each row, int64 [rows]. On ties, return the first position.

    `row` is sorted, and contains each number from 0 to `rows - 1` at least once.
    """
    largest = torch.full((rows,), -torch.inf, dtype=value.dtype, device=value.device)
    largest.scatter_reduce_(0, row, value, "amax")
    attained = (value == largest[row]).nonzero()[:, 0]
    first = torch.searchsorted(row[attained], torch.arange(rows, device=row.device))
    return attained[first]


class GpuEngine(Engine):
    """Screen tiles on a GPU, and compute the exact results on the GPU too.

    The engine halves a tile that does not fit on the GPU. Memory on the GPU: the queries and a tile in fp16, two fp32
    numbers for each row and block of 128 queries, and one fp32 number for each query and block of 128 rows.
    """

    tile_rows = 131_072
    threads = 1

    def __init__(self, request: SearchRequest, *, device: str = "cuda") -> None:
        """Copy the queries to the device.

        Args:
            request: The queries, and the kinds of results to compute.
            device: Device of torch. `cpu` works only with Triton's interpreter.
        """
        super().__init__(request)
        # The sums of tensor cores are less accurate than IEEE fp32, so the error bound is four times as large.
        self.error = 4 * screening_error(self.queries.shape[1])
        self.device = torch.device(device)
        self._queries = torch.from_numpy(request.queries[self.order]).to(self.device)
        reference = self.reference_similarity if self.rule_queries else np.zeros(1)
        self._reference = torch.from_numpy(reference).to(self.device)
        self._shift = self._reference.float()

    def search(
        self, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        """Search one tile. Halve the tile if it does not fit on the GPU; see `Engine.search`."""
        try:
            return self._search(first_row, rows, bound)
        except torch.cuda.OutOfMemoryError:
            if len(rows) == 1:
                raise SimgapError(
                    f"resources.engine: {len(self.order)} queries do not fit on the GPU; set the engine to cpu."
                ) from None
        torch.cuda.empty_cache()
        half = len(rows) // 2
        # This tile may need more memory than other tiles, because its rows may be almost equal. Later tiles therefore
        # keep at least `SMALLEST_TILE` rows.
        self.tile_rows = max(min(self.tile_rows, half), SMALLEST_TILE)
        first, second = self.search(first_row, rows[:half], bound), self.search(first_row + half, rows[half:], bound)
        return _joined(first, second)

    def _search(
        self, first_row: int, rows: NDArray[np.float16], bound: NDArray[np.float32]
    ) -> tuple[RowResults | None, Candidates]:
        tile = torch.from_numpy(np.ascontiguousarray(rows)).to(self.device)
        norms = tile.float().square().sum(dim=1)
        if not bool(((norms - 1).abs() < 0.01).all()):
            raise SimgapError(NOT_UNIT_NORM)
        largest, largest_shifted, largest_by_query = self._maxima(tile)
        lowest = torch.from_numpy(bound[self.order]).to(self.device)
        query, row, screened = self._near(tile, largest_by_query, lowest)
        near = Candidates(self.order[query.cpu().numpy()], row.cpu().numpy() + first_row, screened.cpu().numpy())
        if not self.rule_queries:
            return None, near
        row, query = self._largest(tile, largest, None, self.error)
        similarity = self._exact(tile, row, query)
        best = _first_largest(row, similarity, len(tile))
        # The error of a margin is larger than the error of a product. A margin has two more roundings, because the
        # reference similarity and the difference are rounded.
        margin_row, margin_query = self._largest(tile, largest_shifted, self._shift, self.error + 4 * 2.0**-24)
        difference = self._exact(tile, margin_row, margin_query) - self._reference[margin_query]
        margin = difference[_first_largest(margin_row, difference, len(tile))]
        results = RowResults(
            best=similarity[best].float().cpu().numpy(),
            nearest_query=self.order[query[best].cpu().numpy()].astype(np.int32),
            margin=margin.float().cpu().numpy(),
        )
        return results, near

    def _maxima(self, tile: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute the largest products in each block of rows and queries.

        Returns:
            Three fp32 arrays. The first array has the largest product of each row with the rule queries of each block,
            [rows, blocks of queries]. The second array has the largest margin of each row in each block. Its shape is
            equal to the shape of the first array. The third array has the largest product of each query in each block
            of rows, [blocks of rows, queries].
        """
        row_blocks = triton.cdiv(len(tile), BLOCK_ROWS)
        query_blocks = triton.cdiv(len(self._queries), BLOCK_QUERIES)
        largest = torch.empty((len(tile), query_blocks), device=self.device)
        shifted = torch.empty_like(largest)
        largest_by_query = torch.empty((row_blocks, len(self._queries)), device=self.device)
        write_maxima[(row_blocks, query_blocks)](
            tile,
            self._queries,
            self._shift,
            largest,
            shifted,
            largest_by_query,
            len(tile),
            len(self._queries),
            self.rule_queries,
            tile.shape[1],
            ROWS=BLOCK_ROWS,
            QUERIES=BLOCK_QUERIES,
            DIM=BLOCK_DIM,
        )
        return largest, shifted, largest_by_query

    def _pairs(
        self, vectors: torch.Tensor, others: torch.Tensor, hit: torch.Tensor, block: int, keep: Callable[..., Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Multiply chosen vectors by chosen blocks of other vectors, and select the pairs to keep.

        Args:
            vectors: Vectors, fp16 [vectors, dim].
            others: Other vectors, fp16 [others, dim].
            hit: Number of the vector and number of the block for each multiplication, int64 [hits, 2].
            block: Number of other vectors in a block.
            keep: Function that selects pairs. Its arguments are the numbers of the vectors [hits], the numbers of the
                other vectors [hits, block], and the products [hits, block]. It returns bool [hits, block].

        Returns:
            Three arrays with one value for each kept pair: the number of the vector, the number of the other vector,
            and the product.
        """
        vector, block_number = hit[:, 0].contiguous(), hit[:, 1].contiguous()
        product = torch.empty((len(hit), block), device=self.device)
        if len(hit):
            write_products[(len(hit),)](
                vectors,
                others,
                vector,
                block_number,
                product,
                len(others),
                vectors.shape[1],
                OTHERS=block,
                DIM=BLOCK_DIM,
            )
        other = block_number[:, None] * block + torch.arange(block, device=self.device)
        kept = (other < len(others)) & keep(vector, other.clamp(max=len(others) - 1), product)
        pair, place = kept.nonzero(as_tuple=True)
        return vector[pair], other[pair, place], product[pair, place]

    def _near(
        self, tile: torch.Tensor, largest_by_query: torch.Tensor, bound: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Select the pairs whose product reaches the bound of their query.

        Returns:
            Three arrays with one value for each pair: the query, the position of the row in the tile, and the product.
        """
        if len(largest_by_query) >= self.neighbours:
            # A missing bound is replaced, because every row would be a candidate without a bound. The largest products
            # of the blocks belong to different rows. Therefore, at least k rows reach the k-th largest of these
            # products.
            kth = largest_by_query.topk(self.neighbours, dim=0).values[-1] - float(slack(self.error))
            bound = torch.where(bound == -torch.inf, kth, bound)
        hit = (largest_by_query >= bound).nonzero().flip(1)
        return self._pairs(
            self._queries, tile, hit, BLOCK_ROWS, lambda query, row, product: product >= bound[query, None]
        )

    def _largest(
        self, tile: torch.Tensor, largest: torch.Tensor, shift: torch.Tensor | None, error: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Select the pairs that may have the largest product or the margin of their row.

        Args:
            tile: Vectors of the tile, fp16 [rows, dim].
            largest: Largest value of each row in each block, fp32 [rows, blocks of queries]; see `_maxima`.
            shift: Reference similarity of each rule query, if the margin is wanted. None if the largest product is
                wanted.
            error: Largest error of a screened value.

        Returns:
            Two arrays with one value for each pair: the position of the row in the tile, and the query. The pairs are
            sorted by row, then by query.
        """
        bound = largest.max(dim=1).values - float(slack(error))
        hit = (largest >= bound[:, None]).nonzero()

        def reaches(row: torch.Tensor, query: torch.Tensor, product: torch.Tensor) -> torch.Tensor:
            shifted = product if shift is None else product - shift[query.clamp(max=self.rule_queries - 1)]
            return (query < self.rule_queries) & (shifted >= bound[row, None])

        row, query, _ = self._pairs(tile, self._queries, hit, BLOCK_QUERIES, reaches)
        return row, query

    def _exact(self, tile: torch.Tensor, row: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Return the exact similarity of each pair, float64 [pairs]."""
        similarities = [
            (tile[r].double() * self._queries[q].double()).sum(dim=1)
            for r, q in zip(torch.split(row, PAIRS), torch.split(query, PAIRS), strict=True)
        ]
        return torch.cat(similarities)


def _joined(
    first: tuple[RowResults | None, Candidates], second: tuple[RowResults | None, Candidates]
) -> tuple[RowResults | None, Candidates]:
    """Join the results of two consecutive tiles."""
    near = Candidates(
        *(
            np.concatenate([getattr(found, name) for found in (first[1], second[1])])
            for name in ("query", "row", "screened")
        )
    )
    if first[0] is None or second[0] is None:
        return None, near
    columns = ("best", "nearest_query", "margin")
    return RowResults(*(np.concatenate([getattr(first[0], c), getattr(second[0], c)]) for c in columns)), near
