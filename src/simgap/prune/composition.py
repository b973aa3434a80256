"""Read the class or style of each pool row. A matched control needs them to have the composition of another split."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.data.annotations import shard_annotations
from simgap.data.shards import ShardsByName
from simgap.store.embeddings import Embeddings


def groups_of_rows(pool: Path, embeddings: Embeddings, match: str) -> NDArray[np.int32]:
    """Return the group of each pool row, where a group is a class or a style.

    Groups are numbered from 0 in the order in which they first occur in the pool. All rows without a known class or
    style share one group. Memory holds the result and the annotations of one shard.

    Args:
        pool: Folder with the shards of the pool.
        embeddings: Embeddings of the pool.
        match: `class` or `style`.

    Returns:
        The number of the group of each row, int32 [pool rows].

    Raises:
        SimgapError: The shard of a row is not in the pool, a row has no annotation, or no annotation has a class or
            style.
    """
    shards = ShardsByName(pool)
    numbers: dict[str | None, int] = {}
    groups = np.empty(embeddings.rows, np.int32)
    remedy = "leave prune.matched empty for a pool without annotations"
    for start, table in embeddings.metadata_parts(["shard", "key"]):
        rows = zip(itertools.count(start), table.column("shard").to_pylist(), table.column("key").to_pylist())
        for name, shard_rows in itertools.groupby(rows, key=lambda row: row[1]):
            annotations = dict(shard_annotations(shards[name]))
            for row, _, key in shard_rows:
                if key not in annotations:
                    raise SimgapError(f"{name}: {key} has no json with an annotation; {remedy}")
                group = annotations[key].kind if match == "class" else annotations[key].style
                groups[row] = numbers.setdefault(group, len(numbers))
    if not set(numbers) - {None}:
        raise SimgapError(f"{pool}: no sample has a {match} in its annotation; {remedy}")
    return groups
