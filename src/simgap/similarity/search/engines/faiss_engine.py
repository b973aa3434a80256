"""Search with FAISS. The results are an independent check of the other engines.

The other engines compute all results in one pass. FAISS needs three searches for these results.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from simgap.similarity.search.engines.engine import HostEngine, Screened, SearchRequest, UndecidedPairs
from simgap.similarity.search.exact import screening_error, slack
from simgap.similarity.search.nearest import Candidates


def _search(
    vectors: NDArray[np.float32], among: NDArray[np.float32], k: int, lowest: NDArray[np.float32], slack: np.float32
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Find the neighbours of each vector whose products reach two limits.

    The first limit is `lowest`. The second limit is the k-th largest product of the vector minus `slack`. FAISS returns
    a fixed number of neighbours. If even the last neighbour of a vector reaches both limits, there may be more such
    neighbours. The function then repeats the search for this vector with twice as many neighbours.

    Args:
        vectors: Vectors that need neighbours, fp32 [vectors, dim].
        among: Vectors that may be neighbours, fp32 [others, dim].
        k: Rank of the product that sets the second limit.
        lowest: First limit for each vector, fp32 [vectors].
        slack: Largest difference of two products whose order is undecided; see `exact.slack`.

    Returns:
        Three arrays with one value for each pair: the position in `vectors`, the position in `among`, and the product.
    """
    found = []
    left = np.arange(len(vectors))
    wanted = min(k + 1, len(among))
    while len(left):
        value, place = faiss.knn(vectors[left], among, wanted, metric=faiss.METRIC_INNER_PRODUCT)
        limit = lowest[left]
        if wanted >= k:
            limit = np.maximum(limit, value[:, k - 1] - slack)
        more = (value[:, -1] >= limit) & (wanted < len(among))
        reach = (value >= limit[:, None]) & ~more[:, None]
        row, rank = np.nonzero(reach)
        found.append((left[row], place[row, rank].astype(np.int64), value[row, rank]))
        left = left[more]
        wanted = min(2 * wanted, len(among))
    vector, place, value = (np.concatenate(column) for column in zip(*found, strict=True))
    return vector, place, value


class FaissEngine(HostEngine):
    """Screen tiles with exact searches by FAISS.

    This engine is slower than the other engines. Its purpose is an independent check of their results. Memory: two
    copies of the queries in fp32, a tile, and the neighbours that one search returns.
    """

    tile_rows = 16384
    threads = 1

    def __init__(self, request: SearchRequest) -> None:
        """Prepare the queries, and append the negative reference similarity to each rule query.

        With this number, the product of a row and a rule query is a margin; see `screen`.
        """
        super().__init__(request)
        self.error = screening_error(self.queries.shape[1])
        if self.rule_queries:
            used_by_rule = self.queries[: self.rule_queries]
            self._with_reference = np.column_stack([used_by_rule, -self.reference_similarity.astype(np.float32)])

    def screen(self, rows: NDArray[np.float32], bound: NDArray[np.float32]) -> Screened:
        """Screen a tile with searches of FAISS; see `HostEngine.screen`."""
        query, row, value = _search(self.queries, rows, self.neighbours, bound, slack(self.error))
        near = Candidates(query, row, value)
        if not self.rule_queries:
            return Screened(None, None, near)
        # FAISS finds the largest products, but a margin is a difference. The vectors therefore get one more dimension: 1 for
        # a row, and minus the reference similarity for a query. The product of such vectors is the margin.
        with_one = np.column_stack([rows, np.ones(len(rows), np.float32)])
        return Screened(
            self._largest(rows, self.queries[: self.rule_queries], self.error),
            self._largest(with_one, self._with_reference, 2 * screening_error(rows.shape[1] + 1) + 4 * 2.0**-24),
            near,
        )

    @staticmethod
    def _largest(rows: NDArray[np.float32], queries: NDArray[np.float32], error: float) -> UndecidedPairs:
        row, query, _ = _search(rows, queries, 1, np.full(len(rows), -np.inf, np.float32), slack(error))
        order = np.lexsort((query, row))
        return UndecidedPairs(row[order], query[order])
