"""Clusters of the pool: centroids by k-means, and the nearest centroid of every row."""

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
    """Fit spherical k-means on a seeded sample of pool rows with FAISS: unit-norm centroids, fp16 [clusters, dim].

    All sampled rows are used. The same sample gives the same centroids for one version of FAISS, processor and number of
    threads; another number of threads adds in another order and ends elsewhere. Memory: the sample, twice in fp32.

    Raises:
        SimgapError: there are more clusters than rows to fit them on, or a sampled row is not of unit norm.
    """
    if parameters.clusters == 1:
        return np.eye(1, pool.dim, dtype=np.float16)
    size = min(parameters.sample, pool.rows)
    if parameters.clusters > size:
        raise SimgapError(
            f"deduplicate.clusters: {parameters.clusters} is more than the {size} sampled rows; choose fewer"
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
    )
    kmeans.train(sample)
    return unit_centroids(np.asarray(kmeans.centroids, np.float32), sample)


def unit_centroids(found: NDArray[np.float32], sample: NDArray[np.float32]) -> NDArray[np.float16]:
    """Give centroids unit norm, fp16 [clusters, dim]; one without a direction becomes the sample's row of its number.

    Args:
        found: fp32 [clusters, dim]; zero or not finite where k-means found no direction.
        sample: fp32 [at least clusters, dim], unit norm.
    """
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    usable = np.isfinite(norm) & (norm > 0)
    unit = sample[: len(found)].copy()
    np.divide(found, norm, out=unit, where=usable)
    return unit.astype(np.float16)


def assign(
    pool: Embeddings, centroids: NDArray[np.float16], engine: str, scratch: Path, executor: Executor = LOCAL
) -> NDArray[np.int32]:
    """Give each pool row its nearest centroid by canonical similarity, int32 [pool rows]; the lower one on ties.

    Memory: what the engine takes, and four bytes a pool row.

    Args:
        centroids: fp16 [clusters, dim], unit norm; a single one is every row's, whatever it is.
        engine: name of the engine that finds them; changes no answer.
        scratch: folder where finished parts wait for a stage that was killed.
        executor: who works on the parts; changes no answer.

    Raises:
        SimgapError: a row or one of several centroids is not of unit norm.
    """
    cluster = np.zeros(pool.rows, np.int32)
    if len(centroids) == 1:
        return cluster
    # Nearest centroids are answers for rows; they come with margins, here against nothing.
    asked = SearchRequest(centroids, 1, np.zeros(len(centroids)), np.ones(len(centroids), np.bool_))
    scan(pool, asked, engine, scratch, "deduplicate: nearest centroid", executor)
    for first_row, nearest in scanned_column(scratch, pool, "nearest_query"):
        cluster[first_row : first_row + len(nearest)] = nearest
    return cluster
