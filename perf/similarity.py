"""The similarity engine beside the bare fp32 matrix product and FAISS, for the same answers, interleaved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from perf.machine import report
from simgap.progress import progress
from simgap.similarity.engine import Engine, Nearest
from simgap.similarity.scan import scan_part

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
    pool: NDArray[np.float32], queries: NDArray[np.float32], reference: NDArray[np.float32], k: int
) -> None:
    """Ask FAISS for the same answers: three exact searches, the margin by one more dimension."""
    product = faiss.METRIC_INNER_PRODUCT
    faiss.knn(queries, pool, k, metric=product)
    faiss.knn(pool, queries, 1, metric=product)
    with_one = np.concatenate([pool, np.ones((len(pool), 1), np.float32)], axis=1)
    with_reference = np.concatenate([queries, -reference[:, None]], axis=1)
    faiss.knn(with_one, with_reference, 1, metric=product)


@click.command()
@click.option("--rows", default=20_000, show_default=True)
@click.option("--queries", default=20_000, show_default=True)
@click.option("--dim", default=640, show_default=True)
@click.option("--neighbours", default=8, show_default=True)
@click.option("--tile-rows", default=1024, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--data", type=click.Choice(DATA), default="clustered", show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(
    rows: int, queries: int, dim: int, neighbours: int, tile_rows: int, repeats: int, data: str, out: Path | None
) -> None:
    """Measure seconds, and ratios to the bare product and to FAISS, as medians over interleaved repeats."""
    pool, asked = draw(rows, dim, data, 1), draw(queries, dim, data, 2)
    reference = (asked.astype(np.float64) * draw(queries, dim, data, 3).astype(np.float64)).sum(axis=1)
    wide_pool, wide_asked = pool.astype(np.float32), asked.astype(np.float32)
    product = np.empty((tile_rows, queries), np.float32)
    torch_asked = torch.from_numpy(wide_asked).T
    columns = np.ascontiguousarray(wide_asked.T)

    def tiles() -> range:
        return range(0, rows, tile_rows)

    def bare_numpy() -> None:
        for start in tiles():
            tile = wide_pool[start : start + tile_rows]
            np.matmul(tile, columns, out=product[: len(tile)])

    def bare_torch() -> None:
        for start in tiles():
            torch.from_numpy(wide_pool[start : start + tile_rows]) @ torch_asked

    def engine() -> None:
        known = Nearest.none(queries, neighbours)
        bar: Any = progress(None, rows, "engine", "row")
        with bar:
            scan_part(Engine(asked, neighbours, reference, np.ones(queries, np.bool_)), 0, pool, tile_rows, known, bar)

    ways: dict[str, Callable[[], None]] = {
        "bare product, numpy": bare_numpy,
        "bare product, torch": bare_torch,
        "engine fp32": engine,
        "FAISS, three searches": lambda: faiss_answers(wide_pool, wide_asked, reference.astype(np.float32), neighbours),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    bare = min(medians["bare product, numpy"], medians["bare product, torch"])
    table: list[tuple[str, ...]] = [("way", "seconds", "rate of the bare product", "FAISS takes")]
    for name, median in medians.items():
        table.append(
            (name, f"{median:.2f}", f"{bare / median:.2f}", f"{medians['FAISS, three searches'] / median:.2f} x")
        )
    sizes = {
        "rows": rows,
        "queries": queries,
        "dim": dim,
        "neighbours": neighbours,
        "data": data,
        "tile_rows": tile_rows,
    }
    content: dict[str, Any] = {**sizes, "seconds": seconds, "medians": medians}
    print(", ".join(f"{key} {value}" for key, value in sizes.items()))
    report(table, content, out)


if __name__ == "__main__":
    main()
