"""Embeddings on disk, in clip-retrieval's layout."""

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
    """The embeddings of a set: unit-norm fp16 vectors in parts, with metadata for each row.

    Rows are numbered in the order of the parts. Vectors are mapped into memory, not read: only what the caller uses takes
    memory.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder of a set.

        Raises:
            SimgapError: A part is missing, or the rows, dimensions or dtype of a part are not those in `embeddings.json`.
        """
        self.folder = folder
        self.info: dict[str, Any] = read_json(folder / INFO_FILE)
        for field, kind in (("embedder", str), ("rows", int), ("dim", int)):
            if not isinstance(self.info, dict) or not isinstance(self.info.get(field), kind):
                raise SimgapError(f"{folder / INFO_FILE}: {field} is not recorded; {REMEDY}")
        self.rows = int(self.info["rows"])
        self.dim = int(self.info["dim"])
        self._parts = [
            read_array(path, np.float16, shape=(None, self.dim), mapped=True, remedy=REMEDY)
            for path in sorted((folder / "img_emb").glob("img_emb_*.npy"))
        ]
        stored = sum(len(part) for part in self._parts)
        if stored != self.rows:
            raise SimgapError(f"{folder}: holds {stored} rows, but {INFO_FILE} says {self.rows}; {REMEDY}")

    def __reduce__(self) -> tuple[type[Embeddings], tuple[Path]]:
        """Pickle the folder alone: another process maps the files itself instead of receiving the vectors."""
        return Embeddings, (self.folder,)

    def parts(self) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Yield (first row, mapped vectors [rows, dim]) of each part."""
        start = 0
        for part in self._parts:
            yield start, part
            start += len(part)

    def blocks(self, rows: int) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Yield (first row, vectors [at most `rows`, dim]) in row order; no block crosses the end of a part."""
        for start, part in self.parts():
            for first in range(0, len(part), rows):
                yield start + first, part[first : first + rows]

    def read(self) -> NDArray[np.float16]:
        """Read all vectors into memory, [rows, dim]. Use it for sets of the size of a benchmark."""
        return np.concatenate(self._parts) if self._parts else np.empty((0, self.dim), np.float16)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Read the vectors of some rows, [len(rows), dim]; `rows` must be ascending."""
        bounds = np.cumsum([0, *(len(part) for part in self._parts)])
        pieces = [
            part[rows[(rows >= low) & (rows < high)] - low]
            for part, low, high in zip(self._parts, bounds[:-1], bounds[1:], strict=True)
        ]
        return np.concatenate(pieces) if pieces else np.empty((0, self.dim), np.float16)

    def metadata_parts(self, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
        """Yield (first row, columns of metadata) of each part.

        Raises:
            SimgapError: A table is damaged or lacks a column, there are more or fewer rows than vectors, or `columns` has
                `shard` and a row does not name its shard.
        """
        for start, table in self._tables(columns):
            if "shard" in columns and table.column("shard").null_count:
                raise SimgapError(
                    f"{self.folder}: its rows name no shard, so they can be measured, but neither trained on nor exported; "
                    "import them with the shards that they lie in"
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
            raise SimgapError(f"{self.folder}: the metadata has {start} rows, the vectors have {self.rows}; {REMEDY}")

    def metadata(self, columns: list[str]) -> pa.Table:
        """Read columns of metadata of all parts, one row for each vector.

        Raises:
            SimgapError: See `metadata_parts`.
        """
        return pa.concat_tables([table for _, table in self.metadata_parts(columns)])

    def rows_by_key(self) -> dict[str, int]:
        """Return the row of each key. Of two rows with one key, the later row counts."""
        return {key: row for row, key in enumerate(self.metadata(["key"]).column("key").to_pylist())}

    @cached_property
    def row_order(self) -> str:
        """The SHA-256 of the embedder, the dimensions, and the shard and key of every row.

        The bits of a split refer to rows in this order.
        """
        digest = hashlib.sha256(f"{self.info['embedder']}\n{self.dim}\n{self.rows}\n".encode())
        for _, table in self._tables(["shard", "key"]):
            for batch in table.to_batches(max_chunksize=65536):
                shards, keys = batch.column("shard").to_pylist(), batch.column("key").to_pylist()
                digest.update("".join(f"{shard}\0{key}\n" for shard, key in zip(shards, keys, strict=True)).encode())
        return digest.hexdigest()


def check_same_embedder(*sets: Embeddings) -> None:
    """Check that all sets were embedded by the same embedder.

    Raises:
        SimgapError: Two sets have another embedder or another number of dimensions.
    """
    first = sets[0]
    for other in sets[1:]:
        for field in ("dim", "embedder"):
            if other.info[field] != first.info[field]:
                raise SimgapError(
                    f"{other.folder}: {field} is {other.info[field]}, but in {first.folder} it is {first.info[field]}; "
                    "embed both with one embedder"
                )
