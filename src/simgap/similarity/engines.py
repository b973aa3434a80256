"""Which engine answers: all give the same bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simgap.similarity.cpu import CpuEngine
from simgap.similarity.engine import Engine


def make_engine(
    name: str,
    queries: NDArray[np.float16],
    neighbours: int,
    reference_similarity: NDArray[np.float64] | None = None,
    used_by_rule: NDArray[np.bool_] | None = None,
) -> Engine:
    """Make the engine of a name in `parameters.ENGINES`; for the rest see `Engine`."""
    arguments = (queries, neighbours, reference_similarity, used_by_rule)
    if name == "faiss":
        from simgap.similarity.second_opinion import FaissEngine

        return FaissEngine(*arguments)
    return CpuEngine(*arguments)
