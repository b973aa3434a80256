"""Drop near-duplicates within k-means clusters (the rule of the paper's code, SemDeDup's)."""

from __future__ import annotations

from itertools import pairwise

import faiss
import numpy as np
from numpy.typing import NDArray

from simgap.deduplicate.parameters import DeduplicateParameters
from simgap.embed.store import Embeddings
from simgap.errors import SimgapError
from simgap.progress import progress
from simgap.similarity.exact import exact_product


def find_centroids(parameters: DeduplicateParameters, pool: Embeddings) -> NDArray[np.float32]:
    """Fit k-means on a seeded sample of pool rows with FAISS: unit-norm centroids, fp32 [clusters, dim].

    Raises:
        SimgapError: there are more clusters than rows to fit them on.
    """
    if parameters.clusters == 1:
        return np.zeros((1, pool.dim), np.float32)
    size = min(parameters.sample, pool.rows)
    if parameters.clusters > size:
        raise SimgapError(
            f"deduplicate.clusters: {parameters.clusters} is more than the {size} sampled rows; choose fewer"
        )
    drawn = np.sort(np.random.default_rng(parameters.seed).choice(pool.rows, size, replace=False))
    kmeans = faiss.Kmeans(
        pool.dim, parameters.clusters, niter=parameters.iterations, seed=parameters.seed, spherical=True
    )
    kmeans.train(pool.take(drawn).astype(np.float32))
    return np.asarray(kmeans.centroids, np.float32)


def assign(pool: Embeddings, centroids: NDArray[np.float32], block_rows: int) -> NDArray[np.int32]:
    """Give each pool row its nearest centroid by inner product, int32 [pool rows]; the lower one on ties.

    Products are float64, rounded to fp32 before they are compared: the order of additions decides only where two centroids
    are equally near to within a rounding error of float64 at a boundary of fp32.
    """
    cluster = np.zeros(pool.rows, np.int32)
    if len(centroids) > 1:
        wide = centroids.astype(np.float64)
        for first, block in pool.blocks(block_rows):
            product = (block.astype(np.float64) @ wide.T).astype(np.float32)
            cluster[first : first + len(block)] = product.argmax(axis=1)
    return cluster


def duplicates_within(pool: Embeddings, rows: NDArray[np.int64], eps: float, block_rows: int) -> NDArray[np.bool_]:
    """Mark the rows of one cluster that are too similar to a lower row of it, dropped or not: bool [len(rows)].

    `rows` ascend; too similar is a canonical similarity strictly above 1 - eps. Peak memory: two blocks and their product.
    """
    duplicate = np.zeros(len(rows), np.bool_)
    for start in range(0, len(rows), block_rows):
        block = pool.take(rows[start : start + block_rows])
        for lower in range(0, start + 1, block_rows):
            other = block if lower == start else pool.take(rows[lower : lower + block_rows])
            similar = exact_product(block, other.astype(np.float64)) > 1 - eps
            if lower == start:
                similar = np.tril(similar, -1)
            duplicate[start : start + len(block)] |= similar.any(axis=1)
    return duplicate


def near_duplicates(
    pool: Embeddings, cluster: NDArray[np.int32], clusters: int, eps: float, block_rows: int
) -> NDArray[np.bool_]:
    """Mark the rows that are too similar to a lower row of their cluster, see `duplicates_within`: bool [pool rows]."""
    duplicate = np.zeros(pool.rows, np.bool_)
    order = np.argsort(cluster, kind="stable")
    bounds = np.searchsorted(cluster[order], np.arange(clusters + 1))
    for low, high in progress(list(pairwise(bounds)), clusters, "deduplicate", "cluster"):
        rows = order[low:high]
        duplicate[rows] = duplicates_within(pool, rows, eps, block_rows)
    return duplicate


def deduplicate(
    parameters: DeduplicateParameters, pool: Embeddings, centroids: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Give the rows to keep, bool [pool rows]: exact and independent of threads, given the assignment to centroids."""
    if parameters.eps is None:
        return np.ones(pool.rows, np.bool_)
    cluster = assign(pool, centroids, parameters.block_rows)
    return ~near_duplicates(pool, cluster, len(centroids), parameters.eps, parameters.block_rows)
