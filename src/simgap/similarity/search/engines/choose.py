"""Which engine answers: all give the same bits."""

from __future__ import annotations

from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.similarity.search.engines.engine import Engine, SearchRequest

# Modules are imported where their engine is chosen: torch and FAISS take seconds.


def _has_gpu() -> bool:
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import torch

    return torch.cuda.is_available()


def make_engine(name: str, asked: SearchRequest) -> Engine:
    """Make the engine of a name in `parameters.ENGINES`, `auto` the GPU's where there is one.

    Raises:
        SimgapError: the GPU's is asked for, and there is none; or a query is not of unit norm.
    """
    if name == "faiss":
        from simgap.similarity.search.engines.faiss_engine import FaissEngine

        return FaissEngine(asked)
    if name == "gpu" or (name == "auto" and _has_gpu()):
        if not _has_gpu():
            raise SimgapError("similarity.engine: gpu, but there is no GPU that torch can use; choose auto or cpu")
        from simgap.similarity.search.engines.gpu import GpuEngine

        return GpuEngine(asked)
    if name not in ("auto", "cpu"):
        raise ValueError(f"{name!r} names no engine")
    from simgap.similarity.search.engines.cpu import CpuEngine

    return CpuEngine(asked)
