"""img2dataset shards: tars of `KEY.jpg|jpeg|png|webp`, `KEY.txt`, `KEY.json` and, for labelled sets, `KEY.cls`."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import webdataset

from simgap.core.errors import SimgapError
from simgap.data.manifest import MANIFEST, read_manifest
from simgap.data.remote import RemoteShard

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
MAXIMUM_MEMBER_BYTES = 64_000_000
CHUNK = 2**20
MAXIMUM_CAPTION_CHARACTERS = 10_000

Shard = Path | RemoteShard


@dataclass(frozen=True)
class Sample:
    """One sample of a shard, its image still encoded; (shard, key) names it, keys alone need not be unique."""

    shard: str
    key: str
    image: bytes
    caption: str | None
    label: int | None


def check_label(sample: Sample, classes: int, shard: Shard) -> None:
    """Refuse a label outside the class list as its sample is read, not after all images were worked on.

    Raises:
        SimgapError: the label is not below `classes`.
    """
    if sample.label is not None and sample.label >= classes:
        raise SimgapError(f"{shard}: {sample.key}: label {sample.label} is outside the class list of {classes} names")


def find_shards(folder: Path) -> list[Shard]:
    """Give the tars of a folder, or those that the manifest in it lists, in the order of their names.

    Raises:
        SimgapError: the folder is missing, holds neither tars nor a manifest, or both.
    """
    if not folder.is_dir():
        raise SimgapError(f"{folder}: no such folder; it should hold webdataset shards (00000.tar, ...)")
    paths: list[Shard] = sorted(folder.glob("*.tar"))
    if (folder / MANIFEST).is_file():
        if paths:
            raise SimgapError(f"{folder}: holds {MANIFEST} and {len(paths)} tars; it should hold one or the other")
        return list(read_manifest(folder / MANIFEST))
    if not paths:
        raise SimgapError(f"{folder}: holds no .tar; it should hold webdataset shards (00000.tar, ...)")
    return paths


@dataclass
class Accounting:
    """What became of the samples of a set: read = kept + dropped by reason (design, invariant 1).

    Attributes:
        read: samples that were begun.
        dropped: samples left out, one reason each.
        damaged_shards: tars that end too soon or are corrupt; how many samples they lost is not known.
    """

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    damaged_shards: int = 0

    def metrics(self, kept: int) -> dict[str, int]:
        """Give the figures, without reasons that did not occur.

        Raises:
            SimgapError: they do not add up.
        """
        if self.read != kept + self.dropped.total():
            raise SimgapError(f"accounting: {self.read} samples read, but {kept} kept and {dict(self.dropped)} dropped")
        reasons = {f"dropped/{reason}": count for reason, count in sorted(self.dropped.items()) if count}
        damaged = {"damaged_shards": self.damaged_shards} if self.damaged_shards else {}
        return {"read": self.read, "kept": kept, **reasons, **damaged}


def _ends_well(stream: BinaryIO, offset: int) -> bool:
    """Say whether nothing but a tar's end mark and padding stands from `offset` on."""
    length = 0
    stream.seek(offset)
    while rest := stream.read(CHUNK):
        if rest.strip(b"\0"):
            return False
        length += len(rest)
    return length >= tarfile.BLOCKSIZE


def _members(shard: Shard, accounting: Accounting, only: str | None = None) -> Iterator[tuple[str, str, bytes | None]]:
    """Yield (key, suffix, bytes) of every regular member, None for one that is too large; count a damaged tar.

    A remote shard that cannot be read is not counted as damaged: what it raises passes through. So does what its store says
    at the end, where the shard was replaced meanwhile.

    Args:
        only: the suffix of the members that are read; others are skipped.
    """
    damaged = False
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                folder, slash, name = member.name.removeprefix("./").rpartition("/")
                key, _, suffix = name.partition(".")
                if not member.isfile() or not key or not suffix or (only is not None and suffix.lower() != only):
                    continue
                stream = tar.extractfile(member) if member.size <= MAXIMUM_MEMBER_BYTES else None
                yield f"{folder}{slash}{key}", suffix.lower(), stream.read() if stream else None
            # tarfile takes a corrupt header for the end.
            damaged = not _ends_well(file, tar.offset)
    except (tarfile.TarError, OSError, EOFError):
        damaged = True
    if isinstance(shard, RemoteShard):
        shard.check()
    accounting.damaged_shards += damaged


def _grouped(shard: Shard, accounting: Accounting) -> Iterator[dict[str, Any]]:
    """Group adjacent members of one key with webdataset's own rule; of two members of one name the first counts."""
    files = (
        {"fname": f"{key}.{suffix}", "data": data, "__url__": str(shard)}
        for key, suffix, data in _members(shard, accounting)
    )
    yield from webdataset.tariterators.group_by_keys(files, handler=lambda _: True)


def _label(raw: bytes) -> int | None:
    text = raw.decode("ascii", errors="replace").strip()
    return int(text) if text.isdigit() and text.isascii() and len(text) < 10 else None


def _is_text(name: str) -> bool:
    """Say whether a member's name was UTF-8: tarfile stands surrogates in for other bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def read_json_members(shard: Shard, accounting: Accounting) -> Iterator[tuple[str, bytes]]:
    """Stream (key, bytes) of the `KEY.json` members of a shard."""
    yield from ((key, data) for key, _, data in _members(shard, accounting, only="json") if data is not None)


def read_samples(shard: Shard) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Stream (key, all members by suffix) of the samples that `read_shard` would give if nothing were asked of them."""
    seen: set[str] = set()
    for sample in _grouped(shard, Accounting()):
        key = sample["__key__"]
        if _is_text(key) and key not in seen and None not in sample.values():
            yield key, {suffix: data for suffix, data in sample.items() if suffix not in ("__key__", "__url__")}
        seen.add(key)


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add bytes to a tar, so that equal bytes give an equal tar."""
    # A TarInfo has time 0 and no owner of its own accord.
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def read_shard(shard: Shard, accounting: Accounting, *, caption: bool, label: bool) -> Iterator[Sample]:
    """Stream the samples of a shard in the order of the tar.

    A sample lacks nothing that was asked for: one without image, caption or label is dropped under its reason
    (`no_image`, `no_caption`, `no_label`), as is one with a member above 64 MB (`member_too_large`), one whose name is not
    UTF-8 (`bad_name`) and the second sample of one key (`duplicate_key`, which non-adjacent members also give). A key is a
    member's whole name up to the first dot of its last part; nothing is decoded and no member becomes a path.
    """
    seen: set[str] = set()
    for sample in _grouped(shard, accounting):
        accounting.read += 1
        key = sample["__key__"]
        images = [sample[suffix] for suffix in IMAGE_SUFFIXES if suffix in sample]
        text = sample["txt"].decode("utf-8", errors="replace").strip() if sample.get("txt") else None
        index = _label(sample["cls"]) if sample.get("cls") else None
        if not _is_text(key):
            accounting.dropped["bad_name"] += 1
        elif key in seen:
            accounting.dropped["duplicate_key"] += 1
        elif None in sample.values():
            accounting.dropped["member_too_large"] += 1
        elif not images:
            accounting.dropped["no_image"] += 1
        elif caption and not text:
            accounting.dropped["no_caption"] += 1
        elif label and index is None:
            accounting.dropped["no_label"] += 1
        else:
            yield Sample(shard.name, key, images[0], text[:MAXIMUM_CAPTION_CHARACTERS] if text else None, index)
        seen.add(key)
