"""Measure the quality, the seconds and the memory of deduplication.

The program plants near-duplicates and counts how many near-duplicates clustering misses. It also does the work of simgap with
float64 products, and compares the seconds and the memory of both methods.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from perf.machine import AnonymousMemory, report
from perf.similarity import draw
from perf.store import PART_ROWS, part_sizes, write_embeddings
from simgap.deduplicate.centroids import assign, find_centroids
from simgap.deduplicate.within_cluster import near_duplicates
from simgap.params.deduplicate import DeduplicateParameters
from simgap.similarity.search.exact import exact_product
from simgap.store.embeddings import Embeddings

# The program turns this fraction of the rows into near-duplicates of other rows. Deduplication should drop these rows.
PLANTED = 0.05
SAMPLED_PER_CLUSTER = 64
ITERATIONS = 10


def draw_planted(
    rows: int, dim: int, decay: float, eps: float, seed: int
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Generate clustered rows and plant near-duplicates among them. Planted similarities are uniform between 1 - eps and 1.

    Args:
        rows: Number of rows.
        dim: Number of dimensions.
        decay: The function scales dimension i by i ** -decay. If the decay is 0, the rows prefer no direction. Real embeddings
            prefer some directions.
        eps: Planted similarities are at least 1 - eps.
        seed: Seed of the random generator.

    Returns:
        The rows, fp16 [rows, dim], and the planted pairs, int64 [2, pairs]. The first row of each pair has the smaller
        number.
    """
    scale = np.arange(1, dim + 1, dtype=np.float32) ** np.float32(-decay)
    random = np.random.default_rng(seed)

    def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        length: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / length

    vectors = unit(draw(rows, dim, "clustered", seed).astype(np.float32) * scale)
    pairs = random.permutation(rows)[: 2 * int(PLANTED * rows)].reshape(2, -1)
    original = vectors[pairs[0]]
    aside = random.standard_normal(original.shape, np.float32) * scale
    aside = unit(aside - (aside * original).sum(axis=1, keepdims=True) * original)
    similarity = random.uniform(1 - eps, 1, (len(original), 1)).astype(np.float32)
    vectors[pairs[1]] = similarity * original + np.sqrt(1 - similarity**2) * aside
    return unit(vectors).astype(np.float16), np.sort(pairs, axis=0)


def write_pool(folder: Path, rows: int, dim: int, decay: float, eps: float) -> tuple[Embeddings, NDArray[np.int64]]:
    """Write a pool with planted near-duplicates.

    Returns:
        The embeddings of the pool, and the planted pairs, int64 [2, pairs].
    """
    pairs = []

    def parts() -> Iterator[NDArray[np.float16]]:
        for number, count in enumerate(part_sizes(rows)):
            vectors, planted = draw_planted(count, dim, decay, eps, 1 + number)
            pairs.append(planted + number * PART_ROWS)
            yield vectors

    return write_embeddings(folder, dim, parts()), np.concatenate(pairs, axis=1)


def float64_assign(pool: Embeddings, centroids: NDArray[np.float16], block_rows: int) -> NDArray[np.int32]:
    """Find the nearest centroid of each pool row by float64 products.

    Returns:
        The number of the nearest centroid of each row, int32 [pool rows].
    """
    wide = centroids.astype(np.float64)
    blocks = [exact_product(block, wide).argmax(axis=1) for _, block in pool.blocks(block_rows)]
    return np.concatenate(blocks).astype(np.int32)


def float64_near_duplicates(
    pool: Embeddings, cluster: NDArray[np.int32], clusters: int, eps: float, block_rows: int
) -> NDArray[np.bool_]:
    """Find the near-duplicates within each cluster by float64 products.

    Returns:
        Whether each pool row is a near-duplicate within the cluster of the row, bool [pool rows].
    """
    duplicate = np.zeros(pool.rows, np.bool_)
    order = np.argsort(cluster, kind="stable")
    bounds = np.searchsorted(cluster[order], np.arange(clusters + 1))
    for low, high in pairwise(bounds):
        for start in range(low, high, block_rows):
            rows = order[start : min(start + block_rows, high)]
            block = pool.take(rows)
            for lower in range(low, start + 1, block_rows):
                other = block if lower == start else pool.take(order[lower : lower + block_rows])
                similar = exact_product(block, other.astype(np.float64)) > 1 - eps
                duplicate[rows] |= (np.tril(similar, -1) if lower == start else similar).any(axis=1)
    return duplicate


def has_lower_neighbour(pool: Embeddings, rows: NDArray[np.int64], eps: float, block_rows: int) -> NDArray[np.bool_]:
    """Check whether rows have a near-duplicate with a smaller row number.

    The function compares each of `rows` with the whole pool by float64 products.

    Returns:
        Whether each of `rows` has such a near-duplicate, bool [len(rows)].
    """
    found = np.zeros(len(rows), np.bool_)
    wide = pool.take(rows).astype(np.float64)
    for first, block in pool.blocks(block_rows):
        similar = exact_product(block, wide) > 1 - eps
        found |= (similar & (first + np.arange(len(block))[:, None] < rows)).any(axis=0)
    return found


@click.command()
@click.option(
    "--quality-rows", default=50_000, show_default=True, help="Number of rows of the comparison with all pairs."
)
@click.option("--quality-clusters", default=100, show_default=True)
@click.option("--rows", default=200_000, show_default=True, help="Number of rows for the measured seconds and memory.")
@click.option("--clusters", default=500, show_default=True)
@click.option(
    "--previous-rows", default=100_000, show_default=True, help="Number of rows to compare with float64; 0 skips it."
)
@click.option("--dim", default=640, show_default=True)
@click.option("--decay", default=0.0, show_default=True, help="Factor i ** -decay scales dimension i of each row.")
@click.option("--eps", default=0.124, show_default=True)
@click.option("--block-rows", default=4096, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Folder for the rows.  [default: a temporary folder]")
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(
    quality_rows: int,
    quality_clusters: int,
    rows: int,
    clusters: int,
    previous_rows: int,
    dim: int,
    decay: float,
    eps: float,
    block_rows: int,
    folder: Path | None,
    out: Path | None,
) -> None:
    """Measure the quality and the cost of deduplication.

    The program compares deduplication within clusters with deduplication over all pairs, on planted near-duplicates. It also
    measures the seconds and the peak anonymous memory of each step.
    """
    table: list[tuple[str, ...]] = [("step", "rows", "clusters", "seconds", "peak memory, MB")]
    content: dict[str, Any] = {"dim": dim, "decay": decay, "eps": eps, "block_rows": block_rows, "steps": []}

    def measured(step: str, count: int, cluster_count: int, work: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        with AnonymousMemory() as memory:
            started = time.perf_counter()
            result = work()
            seconds = time.perf_counter() - started
        peak = memory.peak / 1e6
        content["steps"].append(
            {"step": step, "rows": count, "clusters": cluster_count, "seconds": seconds, "peak_memory_mb": peak}
        )
        table.append((step, str(count), str(cluster_count), f"{seconds:.2f}", f"{peak:.0f}"))
        return result

    def fitted(pool: Embeddings, cluster_count: int) -> NDArray[np.float16]:
        parameters = DeduplicateParameters(eps, cluster_count, ITERATIONS, SAMPLED_PER_CLUSTER * cluster_count, 0)
        return measured("k-means", pool.rows, cluster_count, lambda: find_centroids(parameters, pool))

    def applied(
        pool: Embeddings, centroids: NDArray[np.float16], scratch: Path
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        count = len(centroids)
        cluster = measured("nearest centroid", pool.rows, count, lambda: assign(pool, centroids, "auto", scratch))
        dropped = measured(
            "within clusters", pool.rows, count, lambda: near_duplicates(pool, cluster, count, eps, block_rows, scratch)
        )
        return cluster, dropped

    def applied_in_float64(
        pool: Embeddings, centroids: NDArray[np.float16]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        count = len(centroids)
        cluster = measured(
            "nearest centroid, float64", pool.rows, count, lambda: float64_assign(pool, centroids, block_rows)
        )
        dropped = measured(
            "within clusters, float64",
            pool.rows,
            count,
            lambda: float64_near_duplicates(pool, cluster, count, eps, block_rows),
        )
        return cluster, dropped

    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        place = Path(temporary)
        pool, pairs = write_pool(place / "quality", quality_rows, dim, decay, eps)
        one_cluster = np.zeros(pool.rows, np.int32)
        all_pairs = measured(
            "all pairs",
            pool.rows,
            1,
            lambda: near_duplicates(pool, one_cluster, 1, eps, block_rows, place / "all-pairs"),
        )
        cluster, dropped = applied(pool, fitted(pool, quality_clusters), place / "by-cluster")
        planted = pairs[:, all_pairs[pairs[1]]]
        unfounded = ~has_lower_neighbour(pool, np.flatnonzero(dropped), eps, block_rows)
        content["quality"] = {
            "planted_pairs": planted.shape[1],
            "recall_of_planted_pairs": float(dropped[planted[1]].mean()),
            "planted_pairs_parted_by_clusters": int((cluster[planted[0]] != cluster[planted[1]]).sum()),
            "dropped": int(dropped.sum()),
            "dropped_by_all_pairs": int(all_pairs.sum()),
            "dropped_without_a_lower_neighbour": int(unfounded.sum()),
        }
        pool, _ = write_pool(place / "cost", rows, dim, decay, eps)
        centroids = fitted(pool, clusters)
        applied(pool, centroids, place / "all-rows")
        if previous_rows:
            fewer, _ = write_pool(place / "fewer", previous_rows, dim, decay, eps)
            found = applied(fewer, centroids, place / "fewer-rows")
            previous = applied_in_float64(fewer, centroids)
            content["float64_gives_the_same"] = all(map(np.array_equal, found, previous))
    print("\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in content["quality"].items()))
    report(table, content, out)


if __name__ == "__main__":
    main()
