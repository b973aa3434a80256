"""Drop near-duplicates within k-means clusters. This is the rule of the paper's code, which follows SemDeDup."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simgap.core.executor import LOCAL, Executor
from simgap.deduplicate.centroids import assign, find_centroids
from simgap.deduplicate.within_cluster import near_duplicates
from simgap.params.deduplicate import DeduplicateParameters
from simgap.store.arrays import read_array, write_array
from simgap.store.embeddings import Embeddings


def deduplicate(
    parameters: DeduplicateParameters,
    pool: Embeddings,
    engine: str,
    block_rows: int,
    scratch: Path,
    executor: Executor = LOCAL,
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Find the centroids and the rows to keep.

    For given centroids, the kept rows are exact and do not depend on the number of threads; see `assign` and
    `near_duplicates`. Memory: what `find_centroids` needs, or a few blocks and 17 bytes for each pool row, whichever is larger.

    Args:
        parameters: The rule and the settings of k-means.
        pool: Embeddings of the pool.
        engine: Name of the similarity engine; it changes no result.
        block_rows: Rows compared at a time; it changes memory and speed, but no result.
        scratch: Folder of the centroids and the finished parts, from which a killed stage continues.
        executor: Where the parts are processed; it changes no result. The centroids are always found by this process.

    Returns:
        The centroids, fp16 [clusters, dim], and the rows to keep, bool [pool rows].

    Raises:
        SimgapError: There are more clusters than sampled rows, or a row does not have unit norm.
    """
    path = scratch / "centroids.npy"
    if not path.exists():
        write_array(path, find_centroids(parameters, pool))
    centroids: NDArray[np.float16] = read_array(path)
    if parameters.eps is None:
        return centroids, np.ones(pool.rows, np.bool_)
    cluster = assign(pool, centroids, engine, scratch, executor)
    duplicate = near_duplicates(pool, cluster, len(centroids), parameters.eps, block_rows, scratch, executor)
    return centroids, ~duplicate
