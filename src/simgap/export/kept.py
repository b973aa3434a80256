"""The samples that a split keeps, as they are exported."""

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
from simgap.data.shards import Shard, find_shards, read_samples
from simgap.store.embeddings import Embeddings
from simgap.store.split import KEEP_FILE, read_keep, read_split


@dataclass(frozen=True)
class KeptOfShard:
    """The kept samples of one part of the embeddings that lie in one shard; each key is there once."""

    shard: Shard
    keys: list[str]

    def samples(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Stream (key, members by suffix) of the samples in the order of the tar, which is read as far as the last of them.

        Raises:
            SimgapError: a sample is not in the shard.
        """
        waiting = set(self.keys)
        for key, members in read_samples(self.shard):
            if key in waiting:
                waiting.remove(key)
                yield key, members
                if not waiting:
                    return
        first = next(key for key in self.keys if key in waiting)
        raise SimgapError(
            f"{self.shard}: {len(waiting)} samples of the split are not in it, the first is {first!r}; "
            "it should be the shard that was embedded"
        )


class Kept:
    """A split's samples in the pool.

    Raises:
        SimgapError: the split is of other rows than the embeddings, its files disagree, or it keeps none.
    """

    def __init__(self, split: Path, embeddings: Path, pool: Path) -> None:
        self.split = read_split(split)
        self.pool = pool
        self._embeddings = Embeddings(embeddings)
        if self.split.row_order != self._embeddings.row_order:
            raise SimgapError(
                f"{split}: is a split of other rows than those of {embeddings}; `dvc repro` makes it anew"
            )
        if not self.split.kept:
            raise SimgapError(f"{split}: keeps no pool row, so there is nothing to export")
        self._file = split / KEEP_FILE
        self._keep: NDArray[np.bool_] = read_keep(self._file, self.split.pool_rows)
        if self._keep.sum() != self.split.kept:
            raise SimgapError(
                f"{self._file}: keeps {self._keep.sum()} rows, its sidecar says {self.split.kept}; `dvc repro` makes it anew"
            )

    def tables(self) -> Iterator[pa.Table]:
        """Yield `shard` and `key` of the kept rows, in row order, a table for each part of the embeddings.

        Raises:
            SimgapError: the rows do not name their shards.
        """
        yield from self._tables(["shard", "key"])

    def _tables(self, columns: list[str]) -> Iterator[pa.Table]:
        for start, table in self._embeddings.metadata_parts(columns):
            yield table.filter(pa.array(self._keep[start : start + table.num_rows]))

    def parts(self) -> Iterator[list[KeptOfShard]]:
        """Yield the kept samples of each part of the embeddings by shard, the shards in the order of their names.

        However the rows of a part are mixed, as those of an import may be, each of its shards has to be read once.
        Memory is one part's keys.

        Raises:
            SimgapError: a kept row lies in no shard of the pool, which is found out first, or a part names a sample twice.
        """
        shards = {shard.name: shard for shard in find_shards(self.pool)}
        for table in self._tables(["shard"]):
            for name in table.column("shard").unique().to_pylist():
                if name not in shards:
                    raise SimgapError(f"{self.pool}: has no shard {name!r}, though rows of the split lie in it")
        for table in self.tables():
            grouped = table.group_by("shard", use_threads=False).aggregate([("key", "list")]).sort_by("shard")
            part = []
            for name, of_shard in zip(grouped.column("shard").to_pylist(), grouped.column("key_list"), strict=True):
                keys = of_shard.as_py()
                if len(set(keys)) < len(keys):
                    raise SimgapError(
                        f"{self.pool}: the split names a sample of {name} twice; embed or import the pool anew"
                    )
                part.append(KeptOfShard(shards[name], keys))
            yield part

    def identity(self, *settings: object) -> str:
        """Give a hash of all that an export depends on: rows, pool, settings and simgap's own code."""
        content: list[object] = [code_fingerprint(__file__), sha256_of(self._file), self.split.row_order]
        content += [str(self.pool.resolve()), fingerprint(self.pool), *settings]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
