"""Write thumbnails of chosen rows. Shards without a chosen row are not opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simgap.core.errors import SimgapError
from simgap.core.progress import progress
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import Accounting, Shard, ShardsByName, read_shard, select_samples
from simgap.store.arrays import read_parquet
from simgap.store.embeddings import Embeddings

# The longer side of a thumbnail has at most this many pixels. Smaller images are not enlarged.
THUMBNAIL = 160
QUALITY = 85


@dataclass(frozen=True)
class Source:
    """A set of images whose rows appear in the galleries.

    Attributes:
        shards: Folder of the shards.
        embeddings: Embeddings of the set.
        classnames: Names of the classes of a labelled set. None for a set with captions.
    """

    shards: Path
    embeddings: Embeddings
    classnames: tuple[str, ...] | None


def described(source: Source, rows: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Read where each row is stored, and the caption or class name of the row.

    The function reads only the parts of the metadata that contain a given row.

    Args:
        source: The set.
        rows: Numbers of the rows.

    Returns:
        A mapping with `shard`, `key` and `caption` for each row, by row number. A labelled image has its class name as
        caption. An empty caption becomes "no caption".
    """
    wanted = np.unique(np.fromiter(rows, np.int64))
    field = "caption" if source.classnames is None else "label"
    paths = sorted((source.embeddings.folder / "metadata").glob("metadata_*.parquet"))
    found = {}
    for path, (start, part) in zip(paths, source.embeddings.parts(), strict=True):
        inside = wanted[(wanted >= start) & (wanted < start + len(part))]
        if len(inside):
            table = read_parquet(path, ["shard", "key", field]).take(inside - start)
            for row, entry in zip(inside.tolist(), table.to_pylist(), strict=True):
                text = source.classnames[entry[field]] if source.classnames else entry[field] or "no caption"
                found[row] = {"shard": entry["shard"], "key": entry["key"], "caption": text}
    return found


def picture_name(name: str, row: int) -> str:
    """Return the file name of the thumbnail of a row.

    The name does not contain the key of the row, because a key in an archive can be a path to another folder. It does
    not contain the shard either.
    """
    return f"{name}-{row}.jpg"


def cut_pictures(
    sources: Mapping[str, Source], rows: Mapping[str, Mapping[int, Mapping[str, Any]]], folder: Path
) -> None:
    """Write a JPEG thumbnail for each row of each set.

    The function reads each shard once, and stops after the last chosen row of the shard.

    Args:
        sources: Sets by name.
        rows: Result of `described` for each set, by the name of the set.
        folder: Folder to write to.

    Raises:
        SimgapError: An embedded sample or its shard is missing, or an image is broken.
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
        raise SimgapError(f"{where}: was embedded, but is {error} now; embed the set again") from None
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    picture.save(out, "JPEG", quality=QUALITY)
