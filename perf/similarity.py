"""Measure the speed of the similarity engines, of the matrix product alone, and of FAISS.

FAISS computes the same results as the engines. The matrix product alone shows how much time an engine
spends on other work.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from perf.machine import AnonymousMemory, report
from perf.store import part_sizes, write_embeddings
from perf.timing import clocked, interleaved
from simgap.core.progress import progress
from simgap.similarity.search.engines.choose import make_engine
from simgap.similarity.search.engines.cpu import CpuEngine, processor_has_bf16
from simgap.similarity.search.engines.engine import Engine, SearchRequest
from simgap.similarity.search.nearest import Nearest
from simgap.similarity.search.scan import scan, scan_part

DATA = ("clustered", "uniform")


def draw(rows: int, dim: int, data: str, seed: int, clusters: int = 200) -> NDArray[np.float16]:
    """Generate random unit-norm vectors.

    Args:
        rows: Number of vectors.
        dim: Number of dimensions.
        data: `clustered` or `uniform`. `clustered` vectors lie around centres, because embeddings are clustered too. The
            centres do not depend on the seed. `uniform` vectors have no preferred direction.
        seed: Seed of the random generator.
        clusters: Number of centres of `clustered` vectors.

    Returns:
        fp16 [rows, dim].
    """
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((rows, dim), np.float32)
    if data == "clustered":
        centres = np.random.default_rng(0).standard_normal((clusters, dim), np.float32)
        vectors = 0.6 * vectors + centres[random.integers(0, clusters, rows)]
    unit: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return unit


def search_with_faiss(
    pool: NDArray[np.float32],
    queries: NDArray[np.float32],
    reference: NDArray[np.float32],
    k: int,
    knn: Callable[..., Any] = faiss.knn,
) -> None:
    """Compute the results of an engine by three exact searches of FAISS.

    The search for margins appends one dimension to the vectors. The product of two such vectors is a margin.

    Args:
        pool: fp32 [rows, dim].
        queries: fp32 [queries, dim].
        reference: Reference similarity of each query, fp32 [queries].
        k: Number of nearest rows for each query.
        knn: Search function of FAISS.
    """
    product = faiss.METRIC_INNER_PRODUCT
    knn(queries, pool, k, metric=product)
    knn(pool, queries, 1, metric=product)
    with_one = np.concatenate([pool, np.ones((len(pool), 1), np.float32)], axis=1)
    with_reference = np.concatenate([queries, -reference[:, None]], axis=1)
    knn(with_one, with_reference, 1, metric=product)


def bare_products(pool: NDArray[np.float32], queries: NDArray[np.float32]) -> dict[str, Callable[[], None]]:
    """Return functions that compute only the fp32 matrix product, in tiles.

    One function uses NumPy, and the other uses torch.
    """
    tile = 1024
    product = np.empty((tile, len(queries)), np.float32)
    columns = np.ascontiguousarray(queries.T)
    torch_columns = torch.from_numpy(queries).T

    def by_numpy() -> None:
        for start in range(0, len(pool), tile):
            rows = pool[start : start + tile]
            np.matmul(rows, columns, out=product[: len(rows)])

    def by_torch() -> None:
        for start in range(0, len(pool), tile):
            torch.from_numpy(pool[start : start + tile]) @ torch_columns

    return {"bare product, numpy": by_numpy, "bare product, torch": by_torch}


def gpu_methods(
    pool: NDArray[np.float16], queries: NDArray[np.float16], reference: NDArray[np.float64], k: int
) -> dict[str, Callable[[], None]]:
    """Return functions that use the GPU.

    The first function computes only the fp16 matrix product of vectors in GPU memory. If FAISS has GPU support, the second
    function searches with FAISS. Otherwise there is no second function.
    """
    tile = 65_536
    on_gpu, columns = torch.from_numpy(pool).cuda(), torch.from_numpy(queries).cuda().T

    def bare() -> None:
        for start in range(0, len(on_gpu), tile):
            on_gpu[start : start + tile] @ columns
        torch.cuda.synchronize()

    methods: dict[str, Callable[[], None]] = {"GPU: bare product, fp16": bare}
    if hasattr(faiss, "StandardGpuResources"):
        resources = faiss.StandardGpuResources()
        wide_pool, wide_queries = pool.astype(np.float32), queries.astype(np.float32)
        methods["GPU: FAISS, three searches"] = lambda: search_with_faiss(
            wide_pool, wide_queries, reference.astype(np.float32), k, lambda *a, **b: faiss.knn_gpu(resources, *a, **b)
        )
    return methods


def measure_on_disk(
    rows: int, queries: NDArray[np.float16], reference: NDArray[np.float64], k: int, data: str, folder: Path | None
) -> dict[str, float]:
    """Measure the scan of the similarity stage over rows on disk.

    Returns:
        A dict with the keys `rows`, `seconds`, `process_mb` and `scan_mb`. `process_mb` is the peak anonymous memory of the
        process in megabytes. `scan_mb` is the growth of this memory during the scan.
    """
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        dim = queries.shape[1]
        parts = (draw(count, dim, data, 10 + number) for number, count in enumerate(part_sizes(rows)))
        pool = write_embeddings(Path(temporary) / "pool", dim, parts)
        with AnonymousMemory() as memory:
            started = time.perf_counter()
            request = SearchRequest(queries, k, reference, np.ones(len(queries), np.bool_))
            scan(pool, request, "auto", Path(temporary) / "scratch", "rows on disk")
            seconds = time.perf_counter() - started
    return {"rows": rows, "seconds": seconds, "process_mb": memory.peak / 1e6, "scan_mb": memory.grown / 1e6}


@click.command()
@click.option("--rows", default=20_000, show_default=True)
@click.option("--queries", default=20_000, show_default=True)
@click.option("--dim", default=640, show_default=True)
@click.option("--neighbours", default=8, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--data", type=click.Choice(DATA), default="clustered", show_default=True)
@click.option(
    "--disk-rows", default=40_000, show_default=True, help="Number of rows to scan from disk; 0 skips the scan."
)
@click.option("--folder", type=click.Path(path_type=Path), help="Folder for disk rows.  [default: a temporary folder]")
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(
    rows: int,
    queries: int,
    dim: int,
    neighbours: int,
    repeats: int,
    data: str,
    disk_rows: int,
    folder: Path | None,
    out: Path | None,
) -> None:
    """Measure the median seconds of each method, and compare the methods with the bare product and with FAISS.

    The bare product is the matrix product alone. All methods run in turn, and this is repeated.
    """
    pool_rows, query_rows = draw(rows, dim, data, 1), draw(queries, dim, data, 2)
    reference = (query_rows.astype(np.float64) * draw(queries, dim, data, 3).astype(np.float64)).sum(axis=1)
    wide_pool, wide_queries = pool_rows.astype(np.float32), query_rows.astype(np.float32)
    request = SearchRequest(query_rows, neighbours, reference, np.ones(queries, np.bool_))

    def by(make: Callable[[], Engine]) -> Callable[[], None]:
        def search() -> None:
            bar: Any = progress(None, rows, "engine", "row")
            with bar:
                scan_part(make(), 0, pool_rows, Nearest.none(queries, neighbours), bar.update)

        return search

    def by_cpu(*precisions: str) -> Callable[[], None]:
        return by(lambda: CpuEngine(request, precisions=precisions))

    methods = {**bare_products(wide_pool, wide_queries), "engine cpu, fp32": by_cpu("fp32")}
    if processor_has_bf16():
        methods |= {"engine cpu, bf16": by_cpu("bf16"), "engine cpu, automatic precision": by_cpu("fp32", "bf16")}
    if torch.cuda.is_available():
        methods |= gpu_methods(pool_rows, query_rows, reference, neighbours)
        methods["GPU: engine"] = by(lambda: make_engine("gpu", request))
        # The first run compiles the kernels and initialises the GPU, so one run comes before the measurement.
        methods["GPU: engine"]()
    faiss_name = "FAISS, three searches"
    methods[faiss_name] = lambda: search_with_faiss(wide_pool, wide_queries, reference.astype(np.float32), neighbours)
    # This search compiles the loops of the CPU engine, so that the measurement does not include the compilation.
    CpuEngine(SearchRequest(query_rows[:1], 1, reference[:1], np.ones(1, np.bool_))).search(
        0, pool_rows[:1], np.zeros(1, np.float32)
    )
    seconds = interleaved({name: clocked(method) for name, method in methods.items()}, repeats)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    fastest = {
        gpu: min((medians[name] for name in medians if "bare" in name and name.startswith("GPU") == gpu), default=0.0)
        for gpu in (False, True)
    }
    table: list[tuple[str, ...]] = [
        ("method", "seconds", "share of the bare product's rate", "speed relative to FAISS")
    ]
    ratios = {
        name: {"of_bare": fastest[name.startswith("GPU")] / median, "faiss": medians[faiss_name] / median}
        for name, median in medians.items()
    }
    for name, ratio in ratios.items():
        table.append((name, f"{medians[name]:.2f}", f"{ratio['of_bare']:.2f}", f"{ratio['faiss']:.2f} x"))
    sizes = {"rows": rows, "queries": queries, "dim": dim, "neighbours": neighbours, "data": data}
    print(", ".join(f"{key} {value}" for key, value in sizes.items()))
    content: dict[str, Any] = {**sizes, "seconds": seconds, "medians": medians, "ratios": ratios}
    if disk_rows:
        content["from_disk"] = on_disk = measure_on_disk(disk_rows, query_rows, reference, neighbours, data, folder)
        print(
            f"scan of {disk_rows} rows on disk: {on_disk['seconds']:.2f} s, {on_disk['scan_mb']:.0f} MB of anonymous memory"
        )
    report(table, content, out)


if __name__ == "__main__":
    main()
