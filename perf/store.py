"""Write random embeddings in the format of an embedded set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simgap.core.files import write_json
from simgap.store.embeddings import INFO_FILE, Embeddings

PART_ROWS = 100_000


def part_sizes(rows: int) -> list[int]:
    """Return the number of rows of each part of a set with `rows` rows."""
    return [min(PART_ROWS, rows - first) for first in range(0, rows, PART_ROWS)]


def write_embeddings(folder: Path, dim: int, parts: Iterable[NDArray[np.float16]]) -> Embeddings:
    """Write the parts of a set of embeddings, and open the set as the pipeline does.

    The function needs memory for one part.

    Args:
        folder: Folder to write.
        dim: Number of dimensions.
        parts: Vectors of each part, fp16 [rows, dim].

    Returns:
        The embeddings in the folder.
    """
    (folder / "img_emb").mkdir(parents=True)
    rows = 0
    for number, part in enumerate(parts):
        np.save(folder / "img_emb" / f"img_emb_{number:04d}.npy", part)
        rows += len(part)
    write_json(folder / INFO_FILE, {"embedder": "none", "rows": rows, "dim": dim})
    return Embeddings(folder)
