"""The similarity of a pool to one benchmark on disk: columns over pool rows, and a table of queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.core.files import read_json

QUERIES_FILE = "queries.parquet"
INFO_FILE = "similarity.json"


class Similarity:
    """The stored similarity of a pool to one benchmark; columns are mapped, not read.

    Raises:
        SimgapError: the columns do not belong to the pool rows of `row_order`.
    """

    def __init__(self, folder: Path, row_order: str | None = None) -> None:
        self.folder = folder
        self.info = read_json(folder / INFO_FILE)
        if row_order is not None and self.info["row_order"] != row_order:
            raise SimgapError(f"{folder}: was measured on other pool rows or by another embedder; measure it again")

    def column(self, name: str) -> NDArray[Any]:
        """Map the column `best`, `nearest_query` or `margin`, [pool rows]."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")  # type: ignore[no-any-return]

    def queries(self, columns: list[str]) -> pa.Table:
        """Read columns of the table of queries."""
        return pq.read_table(self.folder / QUERIES_FILE, columns=columns)
