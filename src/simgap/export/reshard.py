"""A split as shards of its own."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simgap.data.shards import add_member, read_samples
from simgap.errors import SimgapError
from simgap.export.kept import Kept, Run
from simgap.files import complete, link_or_copy, unfinished, write_json
from simgap.progress import progress


def _groups(kept: Kept, size: int) -> Iterator[pa.Table]:
    """Regroup the kept rows into tables of `size` rows; the last may be shorter."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in kept.tables():
        waiting.append(table)
        rows += table.num_rows
        if rows < size:
            continue
        joined = pa.concat_tables(waiting)
        for start in range(0, rows - rows % size, size):
            yield joined.slice(start, size)
        waiting, rows = [joined.slice(rows - rows % size)], rows % size
    if rows:
        yield pa.concat_tables(waiting)


def _write_shard(runs: list[Run], number: int, width: int, out: Path, seen: Callable[[int], None]) -> None:
    """Write one shard's tar and the table of where its samples lay into a folder; `width` is of a place in the key."""
    columns: dict[str, list[str]] = {"key": [], "source_shard": [], "source_key": []}
    with complete(out) as partial:
        partial.mkdir()
        with tarfile.open(partial / f"{number:05d}.tar", "w") as tar:
            for run in runs:
                wanted, found = set(run.keys), set[str]()
                for source_key, members in read_samples(run.shard):
                    if source_key not in wanted:
                        continue
                    found.add(source_key)
                    # Keys need not be unique over shards, and one may hold anything: so samples are numbered anew.
                    key = f"{number:05d}{len(columns['key']):0{width}d}"
                    for suffix, content in members.items():
                        add_member(tar, f"{key}.{suffix}", content)
                    for column, value in zip(columns.values(), (key, run.shard.name, source_key), strict=True):
                        column.append(value)
                    seen(1)
                    if len(found) == len(wanted):
                        break
                if len(found) < len(run.keys):
                    raise run.missing(found)
        pq.write_table(pa.table(columns), partial / f"{number:05d}.parquet")


def export_shards(kept: Kept, pool: Path, out: Path, samples_per_shard: int) -> tuple[int, int]:
    """Write the kept samples into the folder `out` as img2dataset shards, and give the numbers of samples and of shards.

    Members' bytes are passed through. Samples come in row order, `samples_per_shard` in each tar but the last, under new
    keys: five digits for the shard, four or more for the place in it. `{shard}.parquet` beside each tar has `key`,
    `source_shard` and `source_key`; `sizes.json` has the number of samples of each, as open_clip's training and DataComp
    read it. Finished shards wait beside `out` until it is complete: an export that was killed goes on from them and ends
    with the same bytes. Memory is one shard's keys and one sample.

    Raises:
        SimgapError: `samples_per_shard` is not positive, or a shard or sample of the split is not in the pool.
    """
    if samples_per_shard < 1:
        raise SimgapError(f"--samples-per-shard: {samples_per_shard} is out of range; it should be at least 1")
    identity = kept.identity(pool, "shards", samples_per_shard)
    width = max(4, len(str(samples_per_shard - 1)))
    sizes: dict[str, int] = {}
    bar: Any = progress(None, kept.split.kept, "export", "sample")
    with unfinished(out, "exporting") as folder, bar:
        finished = []
        for number, table in enumerate(_groups(kept, samples_per_shard)):
            shard = folder / f"{identity}-{number:05d}"
            if shard.is_dir():
                bar.update(table.num_rows)
            else:
                _write_shard(kept.runs(pool, table), number, width, shard, bar.update)
            finished.append(shard)
            sizes[f"{number:05d}.tar"] = table.num_rows
        with complete(out) as partial:
            partial.mkdir()
            for shard in finished:
                for file in shard.iterdir():
                    link_or_copy(file, partial / file.name)
            write_json(partial / "sizes.json", dict(sizes))
    return sum(sizes.values()), len(sizes)
