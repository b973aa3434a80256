"""Embeddings on disk, in clip-retrieval's layout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.core.files import read_json

INFO_FILE = "embeddings.json"


def _map(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
    except (ValueError, EOFError, OSError) as error:
        raise SimgapError(f"{path}: is no array that can be read ({error})") from None


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise SimgapError(f"{path}: is no Parquet table that can be read ({str(error).splitlines()[0]})") from None


def columns_of(path: Path) -> list[str]:
    """Give the names of a Parquet table's columns.

    Raises:
        SimgapError: the file is missing or is no such table.
    """
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """Read columns of a Parquet table.

    Raises:
        SimgapError: the file is missing or damaged, text in it is not UTF-8, or it lacks a column.
    """
    missing = [column for column in columns if column not in columns_of(path)]
    if missing:
        raise SimgapError(f"{path}: has no column {missing[0]}")
    with _opened(path) as file:
        table = file.read(columns)
        # Else text that is not UTF-8 would be found out where it is used.
        table.validate(full=True)
        return table


class Embeddings:
    """Unit-norm fp16 vectors of a set, by part, with row-aligned metadata.

    A row is a position in part order. Vectors are mapped, not read: memory is what the caller touches.

    Raises:
        SimgapError: a part is missing, or a part's rows, dim or dtype are not what `embeddings.json` says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info: dict[str, Any] = read_json(folder / INFO_FILE)
        for field, kind in (("embedder", str), ("rows", int), ("dim", int)):
            if not isinstance(self.info, dict) or not isinstance(self.info.get(field), kind):
                raise SimgapError(f"{folder / INFO_FILE}: {field} is not recorded; embed or import the set anew")
        self.rows = int(self.info["rows"])
        self.dim = int(self.info["dim"])
        self._parts = [_map(path) for path in sorted((folder / "img_emb").glob("img_emb_*.npy"))]
        for number, part in enumerate(self._parts):
            if part.dtype != np.float16 or part.ndim != 2 or part.shape[1] != self.dim:
                raise SimgapError(
                    f"{folder}: part {number} is {part.dtype} {part.shape}; it should be float16 [rows, {self.dim}]"
                )
        stored = sum(len(part) for part in self._parts)
        if stored != self.rows:
            raise SimgapError(f"{folder}: holds {stored} rows; {INFO_FILE} says {self.rows}")

    def __reduce__(self) -> tuple[type[Embeddings], tuple[Path]]:
        # What is mapped here is mapped anew elsewhere, not sent.
        return Embeddings, (self.folder,)

    def parts(self) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Yield (first row, vectors [rows, dim]) of each part, mapped."""
        start = 0
        for part in self._parts:
            yield start, part
            start += len(part)

    def blocks(self, rows: int) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Yield (first row, vectors [at most `rows`, dim]) in row order; blocks do not cross parts."""
        for start, part in self.parts():
            for first in range(0, len(part), rows):
                yield start + first, part[first : first + rows]

    def read(self) -> NDArray[np.float16]:
        """Read all vectors, [rows, dim]: for sets of the size of a benchmark."""
        return np.concatenate(self._parts) if self._parts else np.empty((0, self.dim), np.float16)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Read the vectors of ascending `rows`, [len(rows), dim]."""
        bounds = np.cumsum([0, *(len(part) for part in self._parts)])
        pieces = [
            part[rows[(rows >= low) & (rows < high)] - low]
            for part, low, high in zip(self._parts, bounds[:-1], bounds[1:], strict=True)
        ]
        return np.concatenate(pieces) if pieces else np.empty((0, self.dim), np.float16)

    def metadata_parts(self, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
        """Yield (first row, row-aligned metadata columns) of each part.

        Raises:
            SimgapError: a column of shards is asked for and rows do not say theirs, a table is damaged or lacks a column, or
                there are other rows than vectors.
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
            try:
                table = read_table(path, columns)
            except SimgapError as error:
                raise SimgapError(f"{error}; embed or import the set anew") from None
            first, start = start, start + table.num_rows
            if start > self.rows:
                break
            yield first, table
        if start != self.rows:
            raise SimgapError(
                f"{self.folder}: its metadata has {start} rows, its vectors {self.rows}; embed or import the set anew"
            )

    def metadata(self, columns: list[str]) -> pa.Table:
        """Read row-aligned metadata columns of all parts.

        Raises:
            SimgapError: as `metadata_parts`.
        """
        return pa.concat_tables([table for _, table in self.metadata_parts(columns)])

    @cached_property
    def row_order(self) -> str:
        """SHA-256 over embedder, dim and the (shard, key) of every row: what a split's bits refer to."""
        digest = hashlib.sha256(f"{self.info['embedder']}\n{self.dim}\n{self.rows}\n".encode())
        for _, table in self._tables(["shard", "key"]):
            for batch in table.to_batches(max_chunksize=65536):
                shards, keys = batch.column("shard").to_pylist(), batch.column("key").to_pylist()
                digest.update("".join(f"{shard}\0{key}\n" for shard, key in zip(shards, keys, strict=True)).encode())
        return digest.hexdigest()


def check_same_embedder(*sets: Embeddings) -> None:
    """Refuse to compare embeddings of different embedders or dimensions.

    Raises:
        SimgapError: two sets differ.
    """
    first = sets[0]
    for other in sets[1:]:
        for field in ("dim", "embedder"):
            if other.info[field] != first.info[field]:
                raise SimgapError(
                    f"{other.folder}: {field} is {other.info[field]}, but {first.folder} has {first.info[field]}; "
                    "both should come from one embedder"
                )
