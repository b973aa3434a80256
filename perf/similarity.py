"""The similarity engines beside the bare matrix product and FAISS, for the same answers, interleaved."""

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
    """Draw unit-norm fp16 vectors: around shared centres as embeddings lie, or in all directions alike."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((rows, dim), np.float32)
    if data == "clustered":
        centres = np.random.default_rng(0).standard_normal((clusters, dim), np.float32)
        vectors = 0.6 * vectors + centres[random.integers(0, clusters, rows)]
    unit: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return unit


def faiss_answers(
    pool: NDArray[np.float32],
    queries: NDArray[np.float32],
    reference: NDArray[np.float32],
    k: int,
    knn: Callable[..., Any] = faiss.knn,
) -> None:
    """Ask FAISS for the same answers: three exact searches, the margin by one more dimension."""
    product = faiss.METRIC_INNER_PRODUCT
    knn(queries, pool, k, metric=product)
    knn(pool, queries, 1, metric=product)
    with_one = np.concatenate([pool, np.ones((len(pool), 1), np.float32)], axis=1)
    with_reference = np.concatenate([queries, -reference[:, None]], axis=1)
    knn(with_one, with_reference, 1, metric=product)


def bare_products(pool: NDArray[np.float32], queries: NDArray[np.float32]) -> dict[str, Callable[[], None]]:
    """Give the fp32 matrix product alone, in tiles, by the two libraries at hand."""
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


def gpu_ways(
    pool: NDArray[np.float16], queries: NDArray[np.float16], reference: NDArray[np.float64], k: int
) -> dict[str, Callable[[], None]]:
    """Give what a card does: the fp16 product alone, of vectors that are there, and FAISS where it is built for GPUs."""
    tile = 65_536
    there, columns = torch.from_numpy(pool).cuda(), torch.from_numpy(queries).cuda().T

    def bare() -> None:
        for start in range(0, len(there), tile):
            there[start : start + tile] @ columns
        torch.cuda.synchronize()

    ways: dict[str, Callable[[], None]] = {"GPU: bare product, fp16": bare}
    if hasattr(faiss, "StandardGpuResources"):
        resources = faiss.StandardGpuResources()
        wide, asked = pool.astype(np.float32), queries.astype(np.float32)
        ways["GPU: FAISS, three searches"] = lambda: faiss_answers(
            wide, asked, reference.astype(np.float32), k, lambda *a, **b: faiss.knn_gpu(resources, *a, **b)
        )
    return ways


def measure_on_disk(
    rows: int, queries: NDArray[np.float16], reference: NDArray[np.float64], k: int, data: str, folder: Path | None
) -> dict[str, float]:
    """Measure seconds and anonymous memory of the stage's own scan over rows on disk."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        dim = queries.shape[1]
        parts = (draw(count, dim, data, 10 + number) for number, count in enumerate(part_sizes(rows)))
        pool = write_embeddings(Path(place) / "pool", dim, parts)
        with AnonymousMemory() as memory:
            begun = time.perf_counter()
            asked = SearchRequest(queries, k, reference, np.ones(len(queries), np.bool_))
            scan(pool, asked, "auto", Path(place) / "scratch", "rows on disk")
            seconds = time.perf_counter() - begun
    return {"rows": rows, "seconds": seconds, "process_mb": memory.peak / 1e6, "scan_mb": memory.grown / 1e6}


@click.command()
@click.option("--rows", default=20_000, show_default=True)
@click.option("--queries", default=20_000, show_default=True)
@click.option("--dim", default=640, show_default=True)
@click.option("--neighbours", default=8, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--data", type=click.Choice(DATA), default="clustered", show_default=True)
@click.option("--disk-rows", default=40_000, show_default=True, help="Rows of a scan from disk; 0 leaves it out.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where they are written.  [default: a temporary one]")
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
    """Measure seconds, and ratios to the bare product and to FAISS, as medians over interleaved repeats."""
    pool, asked = draw(rows, dim, data, 1), draw(queries, dim, data, 2)
    reference = (asked.astype(np.float64) * draw(queries, dim, data, 3).astype(np.float64)).sum(axis=1)
    wide_pool, wide_asked = pool.astype(np.float32), asked.astype(np.float32)
    questions = SearchRequest(asked, neighbours, reference, np.ones(queries, np.bool_))

    def by(make: Callable[[], Engine]) -> Callable[[], None]:
        def answer() -> None:
            bar: Any = progress(None, rows, "engine", "row")
            with bar:
                scan_part(make(), 0, pool, Nearest.none(queries, neighbours), bar.update)

        return answer

    def by_cpu(*precisions: str) -> Callable[[], None]:
        return by(lambda: CpuEngine(questions, precisions=precisions))

    bare = bare_products(wide_pool, wide_asked)
    ways = {**bare, "engine cpu, fp32": by_cpu("fp32")}
    if processor_has_bf16():
        ways |= {"engine cpu, bf16": by_cpu("bf16"), "engine cpu, as it chooses": by_cpu("fp32", "bf16")}
    if torch.cuda.is_available():
        ways |= gpu_ways(pool, asked, reference, neighbours)
        ways["GPU: engine"] = by(lambda: make_engine("gpu", questions))
        # Compiled, and moved to the card for the first time.
        ways["GPU: engine"]()
    faiss_name = "FAISS, three searches"
    ways[faiss_name] = lambda: faiss_answers(wide_pool, wide_asked, reference.astype(np.float32), neighbours)
    # What is compiled is compiled before it is timed.
    CpuEngine(SearchRequest(asked[:1], 1, reference[:1], np.ones(1, np.bool_))).answer(
        0, pool[:1], np.zeros(1, np.float32)
    )
    seconds = interleaved({name: clocked(way) for name, way in ways.items()}, repeats)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    fastest = {
        gpu: min((medians[name] for name in medians if "bare" in name and name.startswith("GPU") == gpu), default=0.0)
        for gpu in (False, True)
    }
    table: list[tuple[str, ...]] = [("way", "seconds", "rate of the bare product", "FAISS takes")]
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
        content["from_disk"] = on_disk = measure_on_disk(disk_rows, asked, reference, neighbours, data, folder)
        print(
            f"scan of {disk_rows} rows on disk: {on_disk['seconds']:.2f} s, {on_disk['scan_mb']:.0f} MB of anonymous memory"
        )
    report(table, content, out)


if __name__ == "__main__":
    main()
