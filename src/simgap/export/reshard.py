"""A split as shards of its own."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output, link_or_copy, resumable_output, write_json
from simgap.core.progress import progress
from simgap.data.shards import add_member
from simgap.export.kept import Kept
from simgap.export.new import new_output

# Name of its shard, its key there, and its members by suffix.
Sample = tuple[str, str, dict[str, bytes]]


def _samples(kept: Kept, start: int) -> Iterator[Sample]:
    """Stream the kept samples from the place `start` on; shards before that place are not opened."""
    for part in kept.parts():
        for of_shard in part:
            before, start = start, max(0, start - len(of_shard.keys))
            if before < len(of_shard.keys):
                for key, members in itertools.islice(of_shard.samples(), before, None):
                    yield of_shard.shard.name, key, members


def _write_shard(samples: Iterator[Sample], number: int, width: int, out: Path, seen: Callable[[int], object]) -> None:
    """Write one shard's tar and the table of where its samples lay into a folder; `width` is of a place in the key."""
    columns: dict[str, list[str]] = {"key": [], "source_shard": [], "source_key": []}
    with atomic_output(out) as partial:
        partial.mkdir()
        with tarfile.open(partial / f"{number:05d}.tar", "w") as tar:
            for place, (source_shard, source_key, members) in enumerate(samples):
                # Keys need not be unique over shards, and one may hold anything: so samples are numbered anew.
                key = f"{number:05d}{place:0{width}d}"
                for suffix, content in members.items():
                    add_member(tar, f"{key}.{suffix}", content)
                for column, value in zip(columns.values(), (key, source_shard, source_key), strict=True):
                    column.append(value)
                seen(1)
        pq.write_table(pa.table(columns), partial / f"{number:05d}.parquet")


def export_shards(kept: Kept, out: Path, samples_per_shard: int) -> tuple[int, int]:
    """Write the kept samples into the folder `out` as img2dataset shards, and give the numbers of samples and of shards.

    Members' bytes are passed through. Samples come by part of the embeddings, within it by the name of their shard, and
    within that in the order of its tar: where the study embedded the pool itself, that is row order. So each shard is read
    once for each part that has rows of it. Each tar but the last has `samples_per_shard`, under new keys: five digits for
    the shard, four or more for the place in it. `{shard}.parquet` beside each tar has `key`, `source_shard` and
    `source_key`; `sizes.json` has the number of samples of each, as open_clip's training and DataComp read it. Finished
    shards wait beside `out` until it is complete: an export that was killed goes on from them and ends with the same bytes.
    Memory is one part's keys and one sample.

    Raises:
        SimgapError: `samples_per_shard` is not positive, a shard or sample of the split is not in the pool, or `out` exists
            when it is complete.
    """
    if samples_per_shard < 1:
        raise SimgapError(f"--samples-per-shard: {samples_per_shard} is out of range; it should be at least 1")
    identity = kept.identity("shards", samples_per_shard)
    width = max(4, len(str(samples_per_shard - 1)))
    total = kept.split.kept
    sizes: dict[str, int] = {}
    bar: Any = progress(None, total, "export", "sample")
    with resumable_output(out, "exporting") as folder, bar:
        finished = []
        samples: Iterator[Sample] | None = None
        for number, start in enumerate(range(0, total, samples_per_shard)):
            shard, size = folder / f"{identity}-{number:05d}", min(samples_per_shard, total - start)
            if shard.is_dir():
                samples = None
                bar.update(size)
            else:
                samples = samples or _samples(kept, start)
                _write_shard(itertools.islice(samples, size), number, width, shard, bar.update)
            finished.append(shard)
            sizes[f"{number:05d}.tar"] = size
        with new_output(out) as partial:
            partial.mkdir()
            for shard in finished:
                for file in shard.iterdir():
                    link_or_copy(file, partial / file.name)
            write_json(partial / "sizes.json", dict(sizes))
    return total, len(sizes)
