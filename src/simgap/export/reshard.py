"""Export a split as new shards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output, link_or_copy, resumable_output, write_json
from simgap.core.progress import progress
from simgap.data.shards import RawSample, open_writer, write_sample
from simgap.export.kept import KeptSamples
from simgap.export.new import new_output

# This type is a pair. The first part is the name of a shard, and the second part is a sample from this shard.
Located = tuple[str, RawSample]


def _samples(kept: KeptSamples, start: int) -> Iterator[Located]:
    """Yield the kept samples from position `start`. Shards that have only earlier samples are not opened."""
    for part in kept.parts():
        for selection in part:
            before, start = start, max(0, start - len(selection.keys))
            if before < len(selection.keys):
                for sample in itertools.islice(selection.samples(), before, None):
                    yield selection.shard.name, sample


def _write_shard(
    samples: Iterator[Located], number: int, width: int, out: Path, advance: Callable[[int], object]
) -> None:
    """Write one new shard: a folder with the tar, and with a table that lists the source of each sample.

    Args:
        samples: The samples of the new shard.
        number: Number of the new shard.
        width: Number of digits of the sample number. A key ends with this number.
        out: The folder to write.
        advance: Function that is called with 1 after each sample.
    """
    columns: dict[str, list[str]] = {"key": [], "source_shard": [], "source_key": []}
    with atomic_output(out) as partial:
        partial.mkdir()
        with open_writer(partial / f"{number:05d}.tar") as writer:
            for place, (source_shard, sample) in enumerate(samples):
                # Each sample gets a new key. Two source shards may contain the same key, and a source key may be any text,
                # such as a path.
                key = f"{number:05d}{place:0{width}d}"
                write_sample(writer, key, sample.members)
                for column, value in zip(columns.values(), (key, source_shard, sample.key), strict=True):
                    column.append(value)
                advance(1)
        pq.write_table(pa.table(columns), partial / f"{number:05d}.parquet")


def export_shards(kept: KeptSamples, out: Path, samples_per_shard: int) -> tuple[int, int]:
    """Copy the kept samples to a folder of img2dataset shards.

    - Members are copied byte for byte.
    - Samples are sorted by part of the embeddings, then by the name of the source shard, then by position in the tar. With
      this order, an export reads a shard once for each part that has samples of the shard. If the study embedded the pool
      itself, this order is the order of the rows.
    - Each sample gets a new key. It has five digits for the shard, and four or more digits for the sample in the shard.
    - The file `{shard}.parquet` beside each tar has the columns `key`, `source_shard` and `source_key`.
    - The file `sizes.json` has the number of samples of each shard. The training programs of open_clip and DataComp read this
      file.

    Finished shards lie beside `out` until `out` is complete. If an export is killed, the next export continues from the
    finished shards and writes the same bytes.

    Memory: the keys of one part, and one sample.

    Args:
        kept: The samples.
        out: The folder to write.
        samples_per_shard: Number of samples in each shard. The last shard may have fewer.

    Returns:
        The number of samples and the number of shards.

    Raises:
        SimgapError: `samples_per_shard` is below 1, or `out` exists when the export ends. Or the pool lacks a shard or a sample
            of the split.
    """
    if samples_per_shard < 1:
        raise SimgapError(f"--samples-per-shard: {samples_per_shard} is out of range; it must be at least 1")
    cache_key = kept.cache_key(__file__, samples_per_shard)
    width = max(4, len(str(samples_per_shard - 1)))
    total = kept.split.kept
    sizes: dict[str, int] = {}
    bar: Any = progress(None, total, "export", "sample")
    with resumable_output(out, "exporting") as folder, bar:
        finished = []
        samples: Iterator[Located] | None = None
        for number, start in enumerate(range(0, total, samples_per_shard)):
            shard, size = folder / f"{cache_key}-{number:05d}", min(samples_per_shard, total - start)
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
