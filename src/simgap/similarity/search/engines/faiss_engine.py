"""The engine that asks FAISS: other code for the same answers, three searches in place of one pass."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from simgap.similarity.search.engines.engine import HostEngine, Screened, SearchRequest, UndecidedPairs
from simgap.similarity.search.exact import screening_error, slack
from simgap.similarity.search.nearest import Candidates


def _search(
    asked: NDArray[np.float32], among: NDArray[np.float32], k: int, lowest: NDArray[np.float32], slack: np.float32
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Find for each of `asked` all of `among` whose product reaches both `lowest` and the k-th largest less `slack`.

    FAISS gives as many as one asks for: twice as many are asked for where the last of them still reaches.
    """
    found = []
    left = np.arange(len(asked))
    wanted = min(k + 1, len(among))
    while len(left):
        value, place = faiss.knn(asked[left], among, wanted, metric=faiss.METRIC_INNER_PRODUCT)
        limit = lowest[left]
        if wanted >= k:
            limit = np.maximum(limit, value[:, k - 1] - slack)
        more = (value[:, -1] >= limit) & (wanted < len(among))
        reach = (value >= limit[:, None]) & ~more[:, None]
        row, rank = np.nonzero(reach)
        found.append((left[row], place[row, rank].astype(np.int64), value[row, rank]))
        left = left[more]
        wanted = min(2 * wanted, len(among))
    asking, place, value = (np.concatenate(column) for column in zip(*found, strict=True))
    return asking, place, value


class FaissEngine(HostEngine):
    """Screens with exact searches of FAISS; slower, and a second opinion on the engines of simgap.

    Memory: the queries in fp32, twice; a tile; the neighbours that a search gives.
    """

    tile_rows = 16384
    threads = 1

    def __init__(self, asked: SearchRequest) -> None:
        super().__init__(asked)
        self.error = screening_error(self.queries.shape[1])
        if self.rule_queries:
            of_rule = self.queries[: self.rule_queries]
            self._with_reference = np.column_stack([of_rule, -self.reference_similarity.astype(np.float32)])

    def screen(self, rows: NDArray[np.float32], bound: NDArray[np.float32]) -> Screened:
        """Give what a tile leaves open."""
        query, row, value = _search(self.queries, rows, self.neighbours, bound, slack(self.error))
        near = Candidates(query, row, value)
        if not self.rule_queries:
            return Screened(None, None, near)
        # The margin is a product too, of vectors with one more component.
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
