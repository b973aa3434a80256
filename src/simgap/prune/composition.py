"""The class or style of every pool row, for controls that match a split's composition."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.data.marks import shard_annotations
from simgap.data.shards import ShardsByName
from simgap.store.embeddings import Embeddings


def groups_of_rows(pool: Path, embeddings: Embeddings, match: str) -> NDArray[np.int32]:
    """Number the pool's rows by their class or style: int32 [rows], in the order in which groups first come.

    Rows of which it is not known are one group. Memory: the result, and one shard's marks.

    Args:
        match: `class` or `style`.

    Raises:
        SimgapError: a row lies in no shard of the pool or has no marks, or the marks name it of no row.
    """
    shards = ShardsByName(pool)
    numbers: dict[str | None, int] = {}
    groups = np.empty(embeddings.rows, np.int32)
    remedy = "leave prune.matched empty for pools without them"
    for start, table in embeddings.metadata_parts(["shard", "key"]):
        rows = zip(itertools.count(start), table.column("shard").to_pylist(), table.column("key").to_pylist())
        for name, of_shard in itertools.groupby(rows, key=lambda row: row[1]):
            marks = dict(shard_annotations(shards[name]))
            for row, _, key in of_shard:
                if key not in marks:
                    raise SimgapError(f"{name}: {key} has no json with marks; {remedy}")
                group = marks[key].kind if match == "class" else marks[key].style
                groups[row] = numbers.setdefault(group, len(numbers))
    if not set(numbers) - {None}:
        raise SimgapError(f"{pool}: its marks name no sample's {match}; {remedy}")
    return groups
