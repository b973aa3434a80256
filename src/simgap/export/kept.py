"""The samples that a split keeps, as they are exported."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simgap.data.shards import Shard, find_shards
from simgap.embed.store import Embeddings
from simgap.errors import SimgapError
from simgap.files import sha256_of
from simgap.prune.split import KEEP_FILE, read_keep, read_split
from simgap.stage import state_of

SOURCE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """Kept samples that lie in one shard and follow each other in row order."""

    shard: Shard
    keys: list[str]

    def missing(self, found: set[str]) -> SimgapError:
        """Give the error that samples were not found in the shard."""
        lost = [key for key in self.keys if key not in found]
        return SimgapError(
            f"{self.shard}: {len(lost)} samples of the split are not in it, the first is {lost[0]!r}; "
            "it should be the shard that was embedded"
        )


class Kept:
    """A split's samples, in row order.

    Raises:
        SimgapError: the split is of other rows than the embeddings, or keeps none.
    """

    def __init__(self, split: Path, embeddings: Path) -> None:
        self.split = read_split(split)
        self._embeddings = Embeddings(embeddings)
        if self.split.row_order != self._embeddings.row_order:
            raise SimgapError(
                f"{split}: is a split of other rows than those of {embeddings}; `dvc repro` makes it anew"
            )
        if not self.split.kept:
            raise SimgapError(f"{split}: keeps no pool row, so there is nothing to export")
        self._keep: NDArray[np.bool_] = read_keep(split / KEEP_FILE, self.split.pool_rows)
        self._file = split / KEEP_FILE

    def tables(self) -> Iterator[pa.Table]:
        """Yield `shard` and `key` of the kept rows, a table for each part of the embeddings.

        Raises:
            SimgapError: the rows do not name their shards.
        """
        for start, table in self._embeddings.metadata_parts(["shard", "key"]):
            yield table.filter(pa.array(self._keep[start : start + table.num_rows]))

    def runs(self, pool: Path, table: pa.Table) -> list[Run]:
        """Give the runs of kept samples of a table, those of one shard together where they follow each other.

        Raises:
            SimgapError: a shard is not in the pool, or a sample is named twice.
        """
        shards = {shard.name: shard for shard in find_shards(pool)}
        rows = zip(table.column("shard").to_pylist(), table.column("key").to_pylist(), strict=True)
        runs = []
        for name, group in itertools.groupby(rows, key=lambda row: row[0]):
            if name not in shards:
                raise SimgapError(f"{pool}: has no shard {name!r}, though rows of the split lie in it")
            keys = [key for _, key in group]
            if len(set(keys)) < len(keys):
                raise SimgapError(f"{pool}: the split names a sample of {name} twice; embed or import the pool anew")
            runs.append(Run(shards[name], keys))
        return runs

    def identity(self, pool: Path, *settings: object) -> str:
        """Give a hash of all that an export depends on: rows, pool, settings and simgap's own code."""
        content: list[object] = [sha256_of(SOURCE, "*.py"), sha256_of(self._file), self.split.row_order]
        content += [str(pool.resolve()), state_of(pool), *settings]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
