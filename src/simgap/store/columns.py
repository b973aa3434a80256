"""Read the stored similarity of a pool to one benchmark.

The folder of a benchmark holds one array for each quantity of a pool row, and one table of queries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.core.files import read_json
from simgap.store.arrays import read_array, read_parquet

QUERIES_FILE = "queries.parquet"
INFO_FILE = "similarity.json"
REMEDY = "measure the similarity again"


class Similarity:
    """The stored similarity of a pool to one benchmark.

    Attributes:
        folder: The folder of the benchmark.
        info: The content of `similarity.json`.
    """

    def __init__(self, folder: Path, row_order: str | None = None) -> None:
        """Open the folder of a benchmark.

        Args:
            folder: The path of the folder.
            row_order: The hash of the pool rows that the columns must belong to (`Embeddings.row_order`). If it is None, the
                rows are not checked.

        Raises:
            SimgapError: The columns belong to other pool rows or to another embedder.
        """
        self.folder = folder
        self.info = read_json(folder / INFO_FILE)
        if row_order is not None and self.info["row_order"] != row_order:
            raise SimgapError(f"{folder}: the similarities belong to other pool rows or to another embedder; {REMEDY}")

    def column(self, name: str) -> NDArray[Any]:
        """Map a column into memory.

        Args:
            name: `best`, `nearest_query` or `margin`.

        Returns:
            The column, [pool rows].
        """
        return read_array(self.folder / f"{name}.npy", mapped=True, remedy=REMEDY)

    def queries(self, columns: list[str]) -> pa.Table:
        """Read columns of the table of queries. The table has one row for each query."""
        return read_parquet(self.folder / QUERIES_FILE, columns, REMEDY)
