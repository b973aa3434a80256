"""Which engine answers: all give the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simgap.errors import SimgapError
from simgap.similarity.engines.engine import Engine

# Modules are imported where their engine is chosen: torch and FAISS take seconds.


def _has_gpu() -> bool:
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import torch

    return torch.cuda.is_available()


def make_engine(
    name: str,
    queries: NDArray[np.float16],
    neighbours: int,
    reference_similarity: NDArray[np.float64] | None = None,
    used_by_rule: NDArray[np.bool_] | None = None,
) -> Engine:
    """Make the engine of a name in `parameters.ENGINES`, `auto` the GPU's where there is one; for the rest see `Engine`.

    Raises:
        SimgapError: the GPU's is asked for, and there is none; or a query is not of unit norm.
    """
    arguments = (queries, neighbours, reference_similarity, used_by_rule)
    if name == "faiss":
        from simgap.similarity.engines.second_opinion import FaissEngine

        return FaissEngine(*arguments)
    if name == "gpu" or (name == "auto" and _has_gpu()):
        if not _has_gpu():
            raise SimgapError("similarity.engine: gpu, but there is no GPU that torch can use; choose auto or cpu")
        from simgap.similarity.engines.gpu import GpuEngine

        return GpuEngine(*arguments)
    if name not in ("auto", "cpu"):
        raise ValueError(f"{name!r} names no engine")
    from simgap.similarity.engines.cpu import CpuEngine

    return CpuEngine(*arguments)
