"""Find near-duplicates within k-means clusters.

The rule follows SemDeDup. The code of the paper uses this rule too.
"""

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
    `near_duplicates`. Memory: the larger of two values. The first value is the memory of `find_centroids`. The second
    value is a few blocks, and 17 bytes for each pool row.

    Args:
        parameters: Threshold of the rule (`eps`) and settings of k-means. If `eps` is None, all rows are kept.
        pool: Embeddings of the pool.
        engine: Name of the similarity engine. Every engine gives the same result.
        block_rows: Number of rows to compare at a time. It affects memory and speed, but no result.
        scratch: Folder of the centroids and the finished parts. A restarted stage does not compute these files again.
        executor: Executor that processes the parts. Every executor gives the same result. K-means always runs in this
            process.

    Returns:
        Two arrays. The first array has the centroids, fp16 [clusters, dim]. The second array is true for the rows to
        keep, bool [pool rows].

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
