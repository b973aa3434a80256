"""Write the split `full`. It is the deduplicated pool, and every pruning rule starts from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.params.deduplicate import DeduplicateParameters
from simgap.store.embeddings import Embeddings
from simgap.store.split import Split, write_split


def write_full(
    parameters: DeduplicateParameters, pool: Embeddings, keep: NDArray[np.bool_], reference_rows: bool, out: Path
) -> dict[str, Any]:
    """Write the split `full`.

    Args:
        parameters: Parameters of the deduplication that chose the rows.
        pool: Embeddings of the pool.
        keep: bool [pool rows]; true for the rows to keep.
        reference_rows: Whether the reference rows join the training data.
        out: Folder to write.

    Returns:
        The metrics of the split by name.
    """
    split = Split(
        rule="full",
        parameters={"eps": parameters.eps, "clusters": parameters.clusters},
        benchmarks=[],
        threshold=None,
        kept=int(keep.sum()),
        pool_rows=pool.rows,
        kept_description="all rows that are no near-duplicate of a lower row",
        reference_rows=reference_rows,
        row_order=pool.row_order,
        controls=None,
    )
    dropped = split.pool_rows - split.kept
    return {**write_split(split, keep, out), "read": split.pool_rows, "dropped/duplicate": dropped}
