"""Search with FAISS: independent code for the same results, with three searches where simgap's engines need one pass."""

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
    """Find all neighbours whose product reaches both `lowest` and the k-th largest product minus `slack`.

    FAISS returns a fixed number of neighbours. If the last neighbour of a vector still reaches the limit, the search is
    repeated for this vector with twice the number.

    Args:
        vectors: fp32 [vectors, dim].
        among: The vectors to search, fp32 [others, dim].
        k: Rank of the product that sets the limit.
        lowest: fp32 [vectors].
        slack: See `exact.slack`.

    Returns:
        For each pair: the position in `vectors`, the position in `among`, and the product.
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
    """Screen with exact searches of FAISS.

    It is slower than the engines of simgap and serves as an independent check of them. Memory: the queries in fp32, twice; a
    tile; and the neighbours that one search returns.
    """

    tile_rows = 16384
    threads = 1

    def __init__(self, request: SearchRequest) -> None:
        """Append the negative reference similarity to the queries of the rule, so that a product gives the margin."""
        super().__init__(request)
        self.error = screening_error(self.queries.shape[1])
        if self.rule_queries:
            used_by_rule = self.queries[: self.rule_queries]
            self._with_reference = np.column_stack([used_by_rule, -self.reference_similarity.astype(np.float32)])

    def screen(self, rows: NDArray[np.float32], bound: NDArray[np.float32]) -> Screened:
        """Screen a tile by searches of FAISS; see `HostEngine.screen`."""
        query, row, value = _search(self.queries, rows, self.neighbours, bound, slack(self.error))
        near = Candidates(query, row, value)
        if not self.rule_queries:
            return Screened(None, None, near)
        # The margin is the product of vectors with one more component: 1 for a row, minus the reference similarity for a query.
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
