"""Drop near-duplicates within k-means clusters (the rule of the paper's code, SemDeDup's)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simgap.core.executor import LOCAL, Executor
from simgap.deduplicate.arrays import save
from simgap.deduplicate.centroids import assign, find_centroids
from simgap.deduplicate.within_cluster import near_duplicates
from simgap.params.deduplicate import DeduplicateParameters
from simgap.store.embeddings import Embeddings


def deduplicate(
    parameters: DeduplicateParameters,
    pool: Embeddings,
    engine: str,
    block_rows: int,
    scratch: Path,
    executor: Executor = LOCAL,
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Give the centroids, fp16 [clusters, dim], and the rows to keep, bool [pool rows].

    Given the centroids the rows are exact and independent of threads, see `assign` and `near_duplicates`. Memory: the larger
    of what `find_centroids` takes and a few blocks with 17 bytes a pool row.

    Args:
        engine: name of the similarity engine; changes no answer.
        scratch: folder where centroids and finished parts wait for a stage that was killed.
        executor: what runs the parts; changes no result. This process finds the centroids.
        block_rows: rows compared at a time; changes memory and speed.

    Raises:
        SimgapError: there are more clusters than rows to fit them on, or a row is not of unit norm.
    """
    path = scratch / "centroids.npy"
    if not path.exists():
        save(path, find_centroids(parameters, pool))
    centroids: NDArray[np.float16] = np.load(path)
    if parameters.eps is None:
        return centroids, np.ones(pool.rows, np.bool_)
    cluster = assign(pool, centroids, engine, scratch, executor)
    duplicate = near_duplicates(pool, cluster, len(centroids), parameters.eps, block_rows, scratch, executor)
    return centroids, ~duplicate
