"""Choose the engine of a search. Every engine returns the same bits."""

from __future__ import annotations

from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.similarity.search.engines.engine import Engine, SearchRequest

# The module of an engine is imported only if this engine is chosen, because importing torch or FAISS takes seconds.


def _has_gpu() -> bool:
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import torch

    return torch.cuda.is_available()


def make_engine(name: str, request: SearchRequest) -> Engine:
    """Create the engine with the given name.

    Args:
        name: `cpu`, `gpu`, `faiss` or `auto`. `auto` chooses the GPU engine if there is a GPU, and the CPU engine otherwise.
        request: The queries, and the kinds of results to compute.

    Returns:
        An engine that searches with the queries of the request.

    Raises:
        SimgapError: `name` is `gpu` and there is no GPU, or a query does not have unit norm.
        ValueError: `name` is not the name of an engine.
    """
    if name == "faiss":
        from simgap.similarity.search.engines.faiss_engine import FaissEngine

        return FaissEngine(request)
    if name == "gpu" or (name == "auto" and _has_gpu()):
        if not _has_gpu():
            raise SimgapError("resources.engine is gpu, but torch finds no GPU; choose auto or cpu.")
        from simgap.similarity.search.engines.gpu import GpuEngine

        return GpuEngine(request)
    if name not in ("auto", "cpu"):
        raise ValueError(f"{name!r} is not an engine; choose auto, cpu, gpu or faiss.")
    from simgap.similarity.search.engines.cpu import CpuEngine

    return CpuEngine(request)
