"""Thumbnails of chosen rows, cut from the shards that hold them; no other shard is opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from simgap.core.errors import SimgapError
from simgap.core.progress import progress
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import Accounting, Shard, ShardsByName, read_shard, select_samples
from simgap.store.embeddings import Embeddings

# Longer side of a thumbnail, pixels; smaller images stay as they are.
THUMBNAIL = 160
QUALITY = 85


@dataclass(frozen=True)
class Source:
    """A set whose rows are shown: its shards' folder, its embeddings, and names of its classes (None: it has captions)."""

    shards: Path
    embeddings: Embeddings
    classnames: tuple[str, ...] | None


def described(source: Source, rows: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Read shard, key and caption (or the class's name) of rows; of metadata only the parts that hold one."""
    wanted = np.unique(np.fromiter(rows, np.int64))
    field = "caption" if source.classnames is None else "label"
    paths = sorted((source.embeddings.folder / "metadata").glob("metadata_*.parquet"))
    found = {}
    for path, (start, part) in zip(paths, source.embeddings.parts(), strict=True):
        inside = wanted[(wanted >= start) & (wanted < start + len(part))]
        if len(inside):
            table = pq.read_table(path, columns=["shard", "key", field]).take(inside - start)
            for row, entry in zip(inside.tolist(), table.to_pylist(), strict=True):
                text = source.classnames[entry[field]] if source.classnames else entry[field] or "no caption"
                found[row] = {"shard": entry["shard"], "key": entry["key"], "caption": text}
    return found


def picture_name(name: str, row: int) -> str:
    """Give the file name of a row's thumbnail; nothing of an archive's names is in it."""
    return f"{name}-{row}.jpg"


def cut_pictures(
    sources: Mapping[str, Source], rows: Mapping[str, Mapping[int, Mapping[str, Any]]], folder: Path
) -> None:
    """Write a JPEG for every row of every set, a shard at a time, read as far as the last row that is wanted.

    Args:
        rows: by set: what `described` gave.

    Raises:
        SimgapError: a shard lacks a sample that was embedded.
    """
    wanted: dict[Shard, dict[str, Path]] = defaultdict(dict)
    for name, described_rows in rows.items():
        shards = ShardsByName(sources[name].shards)
        for row, entry in described_rows.items():
            wanted[shards[entry["shard"]]][entry["key"]] = folder / picture_name(name, row)
    for shard in progress(sorted(wanted, key=str), len(wanted), "galleries", "shard"):
        samples = read_shard(shard, Accounting(), caption=False, label=False)
        for sample in select_samples(samples, wanted[shard], shard):
            _write_thumbnail(sample.image, wanted[shard][sample.key], f"{shard}: {sample.key}")


def _write_thumbnail(image: bytes, out: Path, where: str) -> None:
    try:
        picture = decode(image)
    except BrokenImage as error:
        raise SimgapError(f"{where}: was embedded but is {error} now; embed the set anew") from None
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    picture.save(out, "JPEG", quality=QUALITY)
