"""Read embeddings that are stored in the layout of clip-retrieval."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.core.files import read_json
from simgap.store.arrays import read_array, read_parquet

INFO_FILE = "embeddings.json"
REMEDY = "embed or import the set again"


class Embeddings:
    """The embeddings of a dataset: unit-norm fp16 vectors in parts, with metadata for each row.

    Rows are numbered in the order of the parts. The vectors are mapped into memory. A vector takes memory only after a caller
    has used it.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder of a dataset.

        Raises:
            SimgapError: A part is missing or has another dtype, or the numbers of rows and dimensions differ from
                `embeddings.json`.
        """
        self.folder = folder
        self.info: dict[str, Any] = read_json(folder / INFO_FILE)
        for field, kind in (("embedder", str), ("rows", int), ("dim", int)):
            if not isinstance(self.info, dict) or not isinstance(self.info.get(field), kind):
                raise SimgapError(f"{folder / INFO_FILE}: the file does not record {field}; {REMEDY}")
        self.rows = int(self.info["rows"])
        self.dim = int(self.info["dim"])
        self._parts = [
            read_array(path, np.float16, shape=(None, self.dim), mapped=True, remedy=REMEDY)
            for path in sorted((folder / "img_emb").glob("img_emb_*.npy"))
        ]
        stored = sum(len(part) for part in self._parts)
        if stored != self.rows:
            raise SimgapError(f"{folder}: the vectors have {stored} rows, but {INFO_FILE} says {self.rows}; {REMEDY}")

    def __reduce__(self) -> tuple[type[Embeddings], tuple[Path]]:
        """Pickle only the folder. A process that receives the object then maps the files into its own memory."""
        return Embeddings, (self.folder,)

    def parts(self) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Yield the parts in row order.

        Yields:
            The number of the first row of the part, and the mapped vectors, fp16 [rows, dim].
        """
        start = 0
        for part in self._parts:
            yield start, part
            start += len(part)

    def blocks(self, rows: int) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Yield blocks of vectors in row order.

        A block ends at the end of a part, so the last block of a part may be smaller.

        Args:
            rows: The largest number of rows in a block.

        Yields:
            The number of the first row of the block, and the vectors, fp16 [at most `rows`, dim].
        """
        for start, part in self.parts():
            for first in range(0, len(part), rows):
                yield start + first, part[first : first + rows]

    def read(self) -> NDArray[np.float16]:
        """Read all vectors into memory. A pool may not fit into memory, but a benchmark does.

        Returns:
            The vectors, fp16 [rows, dim].
        """
        return np.concatenate(self._parts) if self._parts else np.empty((0, self.dim), np.float16)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Read the vectors of some rows into memory.

        Args:
            rows: The numbers of the rows, int64, in ascending order.

        Returns:
            The vectors, fp16 [len(rows), dim].
        """
        bounds = np.cumsum([0, *(len(part) for part in self._parts)])
        pieces = [
            part[rows[(rows >= low) & (rows < high)] - low]
            for part, low, high in zip(self._parts, bounds[:-1], bounds[1:], strict=True)
        ]
        return np.concatenate(pieces) if pieces else np.empty((0, self.dim), np.float16)

    def metadata_parts(self, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
        """Yield the requested metadata of each part.

        Yields:
            The number of the first row of the part, and a table with one row for each vector.

        Raises:
            SimgapError: A table is damaged or lacks a column, or the number of rows differs from the number of vectors. Or
                `columns` contains `shard`, and a row has no shard.
        """
        for start, table in self._tables(columns):
            if "shard" in columns and table.column("shard").null_count:
                raise SimgapError(
                    f"{self.folder}: the metadata name no shards, and training and export need the shards; "
                    "import the embeddings together with their shards"
                )
            yield start, table

    def _tables(self, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
        start = 0
        for path in sorted((self.folder / "metadata").glob("metadata_*.parquet")):
            table = read_parquet(path, columns, REMEDY)
            first, start = start, start + table.num_rows
            if start > self.rows:
                break
            yield first, table
        if start != self.rows:
            raise SimgapError(
                f"{self.folder}: the metadata have {start} rows, but the vectors have {self.rows}; {REMEDY}"
            )

    def metadata(self, columns: list[str]) -> pa.Table:
        """Return the requested metadata of all parts as one table, with one row for each vector.

        Raises:
            SimgapError: The metadata cannot be read, for the reasons that `metadata_parts` lists.
        """
        return pa.concat_tables([table for _, table in self.metadata_parts(columns)])

    def rows_by_key(self) -> dict[str, int]:
        """Return the row number of each key. If several rows have the same key, the last row counts."""
        return {key: row for row, key in enumerate(self.metadata(["key"]).column("key").to_pylist())}

    @cached_property
    def row_order(self) -> str:
        """A SHA-256 hash that identifies the rows and their order.

        The hash covers the embedder, the number of rows and dimensions, and the shard and key of every row in order. A split
        stores one bit for each row. The hash shows whether a split belongs to these rows.
        """
        digest = hashlib.sha256(f"{self.info['embedder']}\n{self.dim}\n{self.rows}\n".encode())
        for _, table in self._tables(["shard", "key"]):
            for batch in table.to_batches(max_chunksize=65536):
                shards, keys = batch.column("shard").to_pylist(), batch.column("key").to_pylist()
                digest.update("".join(f"{shard}\0{key}\n" for shard, key in zip(shards, keys, strict=True)).encode())
        return digest.hexdigest()


def check_same_embedder(*sets: Embeddings) -> None:
    """Check that the same embedder has embedded all datasets.

    Raises:
        SimgapError: Two datasets differ in the embedder or in the number of dimensions.
    """
    first = sets[0]
    for other in sets[1:]:
        for field in ("dim", "embedder"):
            if other.info[field] != first.info[field]:
                raise SimgapError(
                    f"{other.folder}: {field} is {other.info[field]}, but in {first.folder} it is {first.info[field]}; "
                    "embed both datasets with the same embedder"
                )
