"""Find the samples that a split keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simgap.core.code import code_fingerprint
from simgap.core.errors import SimgapError
from simgap.core.files import sha256_of
from simgap.data.fingerprint import fingerprint
from simgap.data.shards import RawSample, Shard, ShardsByName, read_samples, select_samples
from simgap.store.embeddings import Embeddings
from simgap.store.split import KEEP_FILE, read_keep, read_split


@dataclass(frozen=True)
class ShardSelection:
    """Kept samples that belong to the same shard and to the same part of the embeddings.

    Attributes:
        shard: The shard.
        keys: Keys of the samples, without duplicates.
    """

    shard: Shard
    keys: list[str]

    def samples(self) -> Iterator[RawSample]:
        """Yield the samples in the order of the tar. Reading stops after the last selected sample.

        Raises:
            SimgapError: The shard lacks a sample, or it is remote and was replaced during reading.
        """
        return select_samples(read_samples(self.shard), self.keys, self.shard)


class KeptSamples:
    """The samples of the pool that a split keeps.

    Attributes:
        split: Description of the split.
        pool: Folder with the shards of the pool, or with a manifest of the shards.
    """

    def __init__(self, split: Path, embeddings: Path, pool: Path) -> None:
        """Read a split, and check that it belongs to the embeddings.

        Args:
            split: Folder of the split.
            embeddings: Folder of the embeddings of the pool.
            pool: Folder with the shards of the pool, or with a manifest of the shards.

        Raises:
            SimgapError: The split belongs to other embeddings, or the files of the split contradict each other, or the split
                keeps no sample.
        """
        self.split = read_split(split)
        self.pool = pool
        self._embeddings = Embeddings(embeddings)
        if self.split.row_order != self._embeddings.row_order:
            raise SimgapError(
                f"{split}: belongs to other rows than those of {embeddings}; run `dvc repro` to prune again"
            )
        if not self.split.kept:
            raise SimgapError(f"{split}: keeps no pool row; choose a split that keeps at least one")
        self._file = split / KEEP_FILE
        self._keep: NDArray[np.bool_] = read_keep(self._file, self.split.pool_rows)
        if self._keep.sum() != self.split.kept:
            raise SimgapError(
                f"{self._file}: keeps {self._keep.sum()} rows, but the split's description says "
                f"{self.split.kept}; run `dvc repro` to prune again"
            )

    def tables(self, *columns: str) -> Iterator[pa.Table]:
        """Yield the metadata of the kept samples, as one table for each part of the embeddings.

        A table has one row for each kept sample, in the order of the embeddings.

        Args:
            *columns: Names of the metadata columns.

        Raises:
            SimgapError: `shard` is one of the columns, and the embeddings do not record the shards of the samples.
        """
        for start, table in self._embeddings.metadata_parts(list(columns)):
            yield table.filter(pa.array(self._keep[start : start + table.num_rows]))

    def parts(self) -> Iterator[list[ShardSelection]]:
        """Yield one list of selections for each part of the embeddings.

        A list has one selection for each shard, sorted by the name of the shard. In imported embeddings, the rows of several
        shards may alternate. A list groups the rows by shard, so the caller reads each shard only once for each part.

        Memory: the keys of one part.

        Raises:
            SimgapError: The pool lacks a shard of a kept row, or a part names a sample twice. The function checks for missing
                shards before it yields the first list.
        """
        available = ShardsByName(self.pool)
        names = (name for table in self.tables("shard") for name in table.column("shard").unique().to_pylist())
        shards = {name: available[name] for name in names}
        for table in self.tables("shard", "key"):
            grouped = table.group_by("shard", use_threads=False).aggregate([("key", "list")]).sort_by("shard")
            part = []
            for name, selection in zip(grouped.column("shard").to_pylist(), grouped.column("key_list"), strict=True):
                keys = selection.as_py()
                if len(set(keys)) < len(keys):
                    raise SimgapError(
                        f"{self.pool}: the split names a sample of {name} twice; embed or import the pool again"
                    )
                part.append(ShardSelection(shards[name], keys))
            yield part

    def cache_key(self, code: str, *settings: object) -> str:
        """Return a hash of everything that an export depends on: the rows, the pool, the settings and the module `code`."""
        content: list[object] = [code_fingerprint(code), sha256_of(self._file), self.split.row_order]
        content += [str(self.pool.resolve()), fingerprint(self.pool), *settings]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
