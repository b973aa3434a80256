"""Cluster the pool. K-means finds the centroids, and every row is assigned to its nearest centroid."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.core.executor import LOCAL, Executor
from simgap.params.deduplicate import DeduplicateParameters
from simgap.similarity.search.engines.engine import SearchRequest
from simgap.similarity.search.exact import check_unit_norm
from simgap.similarity.search.scan import scan, scanned_column
from simgap.store.embeddings import Embeddings


def find_centroids(parameters: DeduplicateParameters, pool: Embeddings) -> NDArray[np.float16]:
    """Fit spherical k-means with FAISS on a seeded random sample of pool rows.

    K-means uses all sampled rows. It runs on all GPUs if FAISS has GPU support and finds a GPU. Otherwise it runs on the CPU.
    The centroids are reproducible if the FAISS version, the CPU or GPU model, and the number of threads are the same. Any
    other setup adds numbers in another order, so it gives different centroids. Memory: two copies of the sample in fp32.
    Each GPU also needs the centroids and a block of the sample.

    Returns:
        Unit-norm centroids, fp16 [clusters, dim].

    Raises:
        SimgapError: There are more clusters than sampled rows, or a sampled row does not have unit norm.
    """
    if parameters.clusters == 1:
        return np.eye(1, pool.dim, dtype=np.float16)
    size = min(parameters.sample, pool.rows)
    if parameters.clusters > size:
        raise SimgapError(
            f"deduplicate.clusters is {parameters.clusters}, but k-means samples {size} rows; use at most {size} clusters."
        )
    drawn = np.sort(np.random.default_rng(parameters.seed).choice(pool.rows, size, replace=False))
    sample = pool.take(drawn).astype(np.float32)
    check_unit_norm(sample)
    kmeans = faiss.Kmeans(
        pool.dim,
        parameters.clusters,
        niter=parameters.iterations,
        seed=parameters.seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=size,
        # K-means uses GPUs only if FAISS finds a GPU. faiss-cpu always reports zero GPUs. faiss-gpu reports zero GPUs
        # on a machine without a GPU.
        gpu=faiss.get_num_gpus() > 0,
    )
    kmeans.train(sample)
    return unit_centroids(np.asarray(kmeans.centroids, np.float32), sample)


def unit_centroids(centroids: NDArray[np.float32], sample: NDArray[np.float32]) -> NDArray[np.float16]:
    """Scale centroids to unit norm.

    A centroid that is zero or not finite has no direction. If this is the i-th centroid, the i-th sampled row replaces it.

    Args:
        centroids: fp32 [clusters, dim].
        sample: Sampled rows, fp32 [rows, dim], unit norm. There must be at least as many sampled rows as clusters.

    Returns:
        Unit-norm centroids, fp16 [clusters, dim].
    """
    norm = np.linalg.norm(centroids, axis=1, keepdims=True)
    usable = np.isfinite(norm) & (norm > 0)
    unit = sample[: len(centroids)].copy()
    np.divide(centroids, norm, out=unit, where=usable)
    return unit.astype(np.float16)


def assign(
    pool: Embeddings, centroids: NDArray[np.float16], engine: str, scratch: Path, executor: Executor = LOCAL
) -> NDArray[np.int32]:
    """Find the nearest centroid of each pool row by exact similarity. On ties, choose the centroid with the smaller number.

    Memory: the memory of the engine, and four bytes for each pool row.

    Args:
        pool: Embeddings of the pool.
        centroids: Unit-norm centroids, fp16 [clusters, dim]. If there is only one centroid, its values are not used.
        engine: Name of the similarity engine. Every engine gives the same result.
        scratch: Folder of the finished parts. A restarted stage does not repeat these parts.
        executor: Executor that processes the parts. Every executor gives the same result.

    Returns:
        Number of the nearest centroid of each pool row, int32 [pool rows].

    Raises:
        SimgapError: There are several centroids, and a row or a centroid does not have unit norm.
    """
    cluster = np.zeros(pool.rows, np.int32)
    if len(centroids) == 1:
        return cluster
    # The request sets all reference similarities to 0, because this search needs no margins. An engine computes the
    # nearest centroid of a row only together with the margin, and margins need a reference similarity.
    request = SearchRequest(centroids, 1, np.zeros(len(centroids)), np.ones(len(centroids), np.bool_))
    scan(pool, request, engine, scratch, "deduplicate: nearest centroid", executor)
    for first_row, nearest in scanned_column(scratch, pool, "nearest_query"):
        cluster[first_row : first_row + len(nearest)] = nearest
    return cluster
