"""A split as a list of shards and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simgap.core.errors import SimgapError
from simgap.core.progress import progress
from simgap.export.kept import Kept
from simgap.export.new import new_output

SUFFIXES = (".txt", ".parquet")
SCHEMA = pa.schema({"shard": pa.string(), "key": pa.string()})


def _lines(table: pa.Table, out: Path) -> str:
    rows = list(zip(table.column("shard").to_pylist(), table.column("key").to_pylist(), strict=True))
    for shard, key in rows:
        if any(mark in shard + key for mark in "\t\n\r"):
            raise SimgapError(f"{out}: the key {key!r} of {shard!r} does not fit a line of text; name a .parquet")
    return "".join(f"{shard}\t{key}\n" for shard, key in rows)


def export_keys(kept: Kept, out: Path) -> int:
    """Write shard and key of every kept sample in row order, and give their number.

    Only metadata are read, so an export that was killed begins anew. Memory is one part of the embeddings' metadata.

    Args:
        out: `.txt` for lines of shard, tab and key in UTF-8, `.parquet` for a table of two text columns.

    Raises:
        SimgapError: the suffix is neither, a name does not fit a line, the rows do not name their shards, or `out` exists
            when it is complete.
    """
    if out.suffix not in SUFFIXES:
        raise SimgapError(f"{out}: {out.suffix!r} is no kind of list; name a file that ends in {' or '.join(SUFFIXES)}")
    count = 0
    bar: Any = progress(None, kept.split.kept, "export", "sample")
    with new_output(out) as partial, bar:
        if out.suffix == ".txt":
            with partial.open("w", encoding="utf-8", newline="") as stream:
                for table in kept.tables():
                    stream.write(_lines(table, out))
                    count += table.num_rows
                    bar.update(table.num_rows)
        else:
            with pq.ParquetWriter(partial, SCHEMA) as writer:
                for table in kept.tables():
                    writer.write_table(table.cast(SCHEMA))
                    count += table.num_rows
                    bar.update(table.num_rows)
    return count
