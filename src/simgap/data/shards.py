"""img2dataset shards: tars of `KEY.jpg|jpeg|png|webp`, `KEY.txt`, `KEY.json` and, for labelled sets, `KEY.cls`."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import webdataset

from simgap.errors import SimgapError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
MAXIMUM_MEMBER_BYTES = 64_000_000
MAXIMUM_CAPTION_CHARACTERS = 10_000


@dataclass(frozen=True)
class Sample:
    """One sample of a shard, its image still encoded; (shard, key) names it, keys alone need not be unique."""

    shard: str
    key: str
    image: bytes
    caption: str | None
    label: int | None


def shard_paths(folder: Path) -> list[Path]:
    """Give the tars of a folder in the order of their names.

    Raises:
        SimgapError: the folder is missing or holds no tar.
    """
    if not folder.is_dir():
        raise SimgapError(f"{folder}: no such folder; it should hold webdataset shards (00000.tar, ...)")
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise SimgapError(f"{folder}: holds no .tar; it should hold webdataset shards (00000.tar, ...)")
    return paths


def _members(path: Path, dropped: Counter[str]) -> Iterator[tuple[str, str, bytes]]:
    """Yield (key, suffix, bytes) of every regular member; a damaged rest of the tar is counted, not raised."""
    try:
        with tarfile.open(path, mode="r|") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                key, _, suffix = name.partition(".")
                if not member.isfile() or not key or not suffix:
                    continue
                stream = tar.extractfile(member)
                if member.size > MAXIMUM_MEMBER_BYTES or stream is None:
                    dropped["member_too_large"] += 1
                    continue
                yield key, suffix.lower(), stream.read()
    except (tarfile.TarError, OSError, EOFError):
        dropped["damaged_shard"] += 1


def _grouped(path: Path, dropped: Counter[str]) -> Iterator[dict[str, Any]]:
    """Group adjacent members of one key with webdataset's own rule."""
    files = (
        {"fname": f"{key}.{suffix}", "data": data, "__url__": str(path)}
        for key, suffix, data in _members(path, dropped)
    )

    def duplicate(_: Exception) -> bool:
        dropped["duplicate_member"] += 1
        return True

    yield from webdataset.tariterators.group_by_keys(files, handler=duplicate)


def _label(raw: bytes) -> int | None:
    text = raw.decode("ascii", errors="replace").strip()
    return int(text) if text.isdigit() else None


def read_json_members(path: Path, dropped: Counter[str]) -> Iterator[tuple[str, bytes]]:
    """Stream (key, bytes) of the `KEY.json` members of a shard."""
    yield from ((key, data) for key, suffix, data in _members(path, dropped) if suffix == "json")


def read_shard(path: Path, dropped: Counter[str], *, caption: bool, label: bool) -> Iterator[Sample]:
    """Stream the samples of a shard in the order of the tar.

    A sample lacks nothing that was asked for: one without image, caption or label is counted in `dropped` under its
    reason (`no_image`, `no_caption`, `no_label`), as are the second sample of one key (`duplicate_key`, which non-adjacent
    members also give) and a tar that ends too soon (`damaged_shard`). Nothing is decoded and no member becomes a path.
    """
    seen: set[str] = set()
    for sample in _grouped(path, dropped):
        key = sample["__key__"]
        image = next((sample[suffix] for suffix in IMAGE_SUFFIXES if suffix in sample), None)
        text = sample["txt"].decode("utf-8", errors="replace").strip() if "txt" in sample else None
        index = _label(sample["cls"]) if "cls" in sample else None
        if key in seen:
            dropped["duplicate_key"] += 1
        elif image is None:
            dropped["no_image"] += 1
        elif caption and not text:
            dropped["no_caption"] += 1
        elif label and index is None:
            dropped["no_label"] += 1
        else:
            yield Sample(path.name, key, image, text[:MAXIMUM_CAPTION_CHARACTERS] if text else None, index)
        seen.add(key)
