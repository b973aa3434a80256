"""Cluster the pool: find centroids by k-means, and the nearest centroid of every row."""

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
    """Fit spherical k-means with FAISS on a seeded sample of pool rows.

    K-means uses all sampled rows. It runs on all GPUs if FAISS has GPU support and finds a GPU, else on the CPU. The same
    sample gives the same centroids for one version of FAISS, one processor or GPU model, and one number of threads. If one of
    them differs, sums are computed in another order and the centroids differ too. Memory: the sample, twice in fp32; on each
    GPU the centroids and a block of the sample.

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
        # faiss-cpu reports no GPU, and so does faiss-gpu on a machine without one.
        gpu=faiss.get_num_gpus() > 0,
    )
    kmeans.train(sample)
    return unit_centroids(np.asarray(kmeans.centroids, np.float32), sample)


def unit_centroids(centroids: NDArray[np.float32], sample: NDArray[np.float32]) -> NDArray[np.float16]:
    """Scale centroids to unit norm.

    The i-th centroid is replaced by the i-th sampled row if it is zero or not finite: k-means found no direction for it.

    Args:
        centroids: fp32 [clusters, dim].
        sample: fp32 [rows, dim], unit norm, with at least as many rows as there are clusters.

    Returns:
        fp16 [clusters, dim].
    """
    norm = np.linalg.norm(centroids, axis=1, keepdims=True)
    usable = np.isfinite(norm) & (norm > 0)
    unit = sample[: len(centroids)].copy()
    np.divide(centroids, norm, out=unit, where=usable)
    return unit.astype(np.float16)


def assign(
    pool: Embeddings, centroids: NDArray[np.float16], engine: str, scratch: Path, executor: Executor = LOCAL
) -> NDArray[np.int32]:
    """Find the nearest centroid of each pool row by canonical similarity; ties go to the lower centroid.

    Memory: what the engine needs, and four bytes for each pool row.

    Args:
        pool: Embeddings of the pool.
        centroids: fp16 [clusters, dim], unit norm. If there is only one, its values are not used.
        engine: Name of the similarity engine; it changes no result.
        scratch: Folder of the finished parts, from which a killed stage continues.
        executor: Where the parts are processed; it changes no result.

    Returns:
        int32 [pool rows].

    Raises:
        SimgapError: A row does not have unit norm, or there are several centroids and one does not have unit norm.
    """
    cluster = np.zeros(pool.rows, np.int32)
    if len(centroids) == 1:
        return cluster
    # The nearest centroid is a result for rows. Such results include margins, so the request has a reference similarity of 0.
    request = SearchRequest(centroids, 1, np.zeros(len(centroids)), np.ones(len(centroids), np.bool_))
    scan(pool, request, engine, scratch, "deduplicate: nearest centroid", executor)
    for first_row, nearest in scanned_column(scratch, pool, "nearest_query"):
        cluster[first_row : first_row + len(nearest)] = nearest
    return cluster
