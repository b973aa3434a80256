"""Export a split as a list of shards and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simgap.core.errors import SimgapError
from simgap.core.progress import progress
from simgap.export.kept import KeptSamples
from simgap.export.new import new_output

SUFFIXES = (".txt", ".parquet")
SCHEMA = pa.schema({"shard": pa.string(), "key": pa.string()})


def _lines(table: pa.Table, out: Path) -> str:
    rows = list(zip(table.column("shard").to_pylist(), table.column("key").to_pylist(), strict=True))
    for shard, key in rows:
        if any(character in shard + key for character in "\t\n\r"):
            raise SimgapError(
                f"{out}: the key {key!r} of {shard!r} has a tab or a line break; export to a .parquet file"
            )
    return "".join(f"{shard}\t{key}\n" for shard, key in rows)


def export_keys(kept: KeptSamples, out: Path) -> int:
    """Write the shard and the key of every kept sample, in row order.

    The export is fast, because it reads only metadata. If an export is killed, the next export starts from the beginning.

    Memory: the metadata of one part of the embeddings.

    Args:
        kept: The samples.
        out: File to write. A `.txt` file is UTF-8 text, with shard, tab and key in each line. A `.parquet` file is a table with
            the text columns `shard` and `key`.

    Returns:
        The number of samples.

    Raises:
        SimgapError: `out` has another suffix, or `out` exists when the export ends. Or a shard or key has a tab or a line
            break and `out` is a text file. Or the embeddings do not record the shards of the samples.
    """
    if out.suffix not in SUFFIXES:
        raise SimgapError(
            f"{out}: {out.suffix!r} is not the suffix of a list; name a file that ends in {' or '.join(SUFFIXES)}"
        )
    count = 0
    bar: Any = progress(None, kept.split.kept, "export", "sample")
    with new_output(out) as partial, bar:
        if out.suffix == ".txt":
            with partial.open("w", encoding="utf-8", newline="") as stream:
                for table in kept.tables("shard", "key"):
                    stream.write(_lines(table, out))
                    count += table.num_rows
                    bar.update(table.num_rows)
        else:
            with pq.ParquetWriter(partial, SCHEMA) as writer:
                for table in kept.tables("shard", "key"):
                    writer.write_table(table.cast(SCHEMA))
                    count += table.num_rows
                    bar.update(table.num_rows)
    return count
