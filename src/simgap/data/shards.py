"""Read and write img2dataset shards.

A shard is a tar file. Each of its samples is a group of adjacent members with one key: an image (`KEY.jpg`, `KEY.jpeg`,
`KEY.png` or `KEY.webp`), `KEY.txt`, `KEY.json` and, in a labelled set, `KEY.cls`.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

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
    """A sample of a shard, with its image still encoded.

    The shard and the key together identify a sample. A key alone may occur in several shards.

    Attributes:
        shard: file name of the shard.
        key: name of the members of the sample, up to the first dot.
        image: encoded image.
        caption: caption, or None if the sample has none.
        label: class index, or None if the sample has none.
    """

    shard: str
    key: str
    image: bytes
    caption: str | None
    label: int | None


class RawSample(NamedTuple):
    """All members of a sample, as they are stored.

    Attributes:
        key: name of the members, up to the first dot.
        members: content of each member by suffix.
    """

    key: str
    members: dict[str, bytes]


AnySample = TypeVar("AnySample", Sample, RawSample)


def check_label(sample: Sample, classes: int, shard: Shard) -> None:
    """Check that the label of a sample is in the class list.

    Call it for each sample as it is read: a wrong label then ends the work at once, not after all images were processed.

    Raises:
        SimgapError: The label is not below `classes`.
    """
    if sample.label is not None and sample.label >= classes:
        raise SimgapError(f"{shard}: {sample.key}: label {sample.label} is outside the class list of {classes} names")


def find_shards(folder: Path) -> list[Shard]:
    """Return the shards of a folder, sorted by name.

    The folder holds either tar files or a manifest, which lists tar files in an object store.

    Raises:
        SimgapError: The folder does not exist, or it holds neither tars nor a manifest, or both.
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


class ShardsByName(dict[str, Shard]):
    """The shards of a folder by name. Looking up a name that is not there raises SimgapError."""

    def __init__(self, folder: Path) -> None:
        """Find the shards of a folder; see `find_shards`."""
        super().__init__((shard.name, shard) for shard in find_shards(folder))
        self._folder = folder

    def __missing__(self, name: str) -> Shard:
        """Refuse the name of a shard that is not in the folder."""
        raise SimgapError(
            f"{self._folder}: has no shard {name!r}, but embedded samples lie in it; restore the shard or embed the set again"
        )


@dataclass
class Accounting:
    """Counts of the samples of a set: read = kept + dropped. This equation is an invariant in docs/architecture.md.

    Attributes:
        read: number of samples that were read, whether they were kept or dropped.
        dropped: number of dropped samples by reason. Each dropped sample has one reason.
        damaged_shards: number of tars that are truncated or corrupt. How many samples they lost is not known.
    """

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    damaged_shards: int = 0

    def metrics(self, kept: int) -> dict[str, int]:
        """Return the counts as metrics. Reasons that did not occur are left out.

        Raises:
            SimgapError: The counts do not add up.
        """
        if self.read != kept + self.dropped.total():
            raise SimgapError(f"accounting: {self.read} samples read, but {kept} kept and {dict(self.dropped)} dropped")
        reasons = {f"dropped/{reason}": count for reason, count in sorted(self.dropped.items()) if count}
        damaged = {"damaged_shards": self.damaged_shards} if self.damaged_shards else {}
        return {"read": self.read, "kept": kept, **reasons, **damaged}


def _ends_cleanly(stream: BinaryIO, offset: int) -> bool:
    """Return whether only the end mark and the padding of a tar follow `offset`."""
    length = 0
    stream.seek(offset)
    while rest := stream.read(CHUNK):
        if rest.strip(b"\0"):
            return False
        length += len(rest)
    return length >= tarfile.BLOCKSIZE


def _read_members(
    shard: Shard, accounting: Accounting, only: str | None = None
) -> Iterator[tuple[str, str, bytes | None]]:
    """Yield (key, suffix, content) of every regular member, and count the shard if it is damaged.

    The content of a member that is too large is None. If a remote shard cannot be read, or was replaced since it was
    listed, it is not counted as damaged: the error passes through.

    Args:
        shard: the shard to read.
        accounting: its count of damaged shards is updated.
        only: if given, members with another suffix are skipped.
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
            # tarfile stops without an error at a corrupt header, as if the tar ended there.
            damaged = not _ends_cleanly(file, tar.offset)
    except (tarfile.TarError, OSError, EOFError):
        damaged = True
    _check_unchanged(shard)
    accounting.damaged_shards += damaged


def _check_unchanged(shard: Shard) -> None:
    if isinstance(shard, RemoteShard):
        shard.check()


def _group_members(shard: Shard, accounting: Accounting) -> Iterator[dict[str, Any]]:
    """Group adjacent members with one key by webdataset's own function. If a name occurs twice, the first member counts."""
    files = (
        {"fname": f"{key}.{suffix}", "data": data, "__url__": str(shard)}
        for key, suffix, data in _read_members(shard, accounting)
    )
    yield from webdataset.tariterators.group_by_keys(files, handler=lambda _: True)


def _parse_label(raw: bytes) -> int | None:
    text = raw.decode("ascii", errors="replace").strip()
    return int(text) if text.isdigit() and text.isascii() and len(text) < 10 else None


def _is_utf8(name: str) -> bool:
    """Return whether the name of a member is UTF-8. tarfile decodes all other bytes to surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def read_json_members(shard: Shard, accounting: Accounting) -> Iterator[tuple[str, bytes]]:
    """Stream (key, content) of the `KEY.json` members of a shard."""
    yield from ((key, data) for key, _, data in _read_members(shard, accounting, only="json") if data is not None)


def read_samples(shard: Shard) -> Iterator[RawSample]:
    """Stream all members of the samples of a shard.

    The samples are those that `read_shard` yields if it requires neither image, caption nor label.
    """
    seen: set[str] = set()
    for sample in _group_members(shard, Accounting()):
        key = sample["__key__"]
        if _is_utf8(key) and key not in seen and None not in sample.values():
            members = {suffix: data for suffix, data in sample.items() if suffix not in ("__key__", "__url__")}
            yield RawSample(key, members)
        seen.add(key)


def read_shard(shard: Shard, accounting: Accounting, *, caption: bool, label: bool) -> Iterator[Sample]:
    """Stream the samples of a shard in the order of the tar. Images are not decoded.

    A sample is dropped for the first of these reasons that applies:

    - `bad_name`: its name is not UTF-8.
    - `duplicate_key`: an earlier sample of the shard has its key. This is also counted if the members of one sample are
      not adjacent.
    - `member_too_large`: one of its members is larger than 64 MB.
    - `no_image`: it has no image.
    - `no_caption`: it has no caption, and `caption` is true.
    - `no_label`: it has no label, and `label` is true.

    The key of a member is its path up to the first dot of the file name. No member is extracted to the disk.

    Args:
        shard: the shard to read.
        accounting: counts of samples and of damaged shards, which are updated.
        caption: whether samples without a caption are dropped.
        label: whether samples without a label are dropped.
    """
    seen: set[str] = set()
    for sample in _group_members(shard, accounting):
        accounting.read += 1
        key = sample["__key__"]
        images = [sample[suffix] for suffix in IMAGE_SUFFIXES if suffix in sample]
        text = sample["txt"].decode("utf-8", errors="replace").strip() if sample.get("txt") else None
        index = _parse_label(sample["cls"]) if sample.get("cls") else None
        # The first reason that is true counts.
        reasons = {
            "bad_name": not _is_utf8(key),
            "duplicate_key": key in seen,
            "member_too_large": None in sample.values(),
            "no_image": not images,
            "no_caption": caption and not text,
            "no_label": label and index is None,
        }
        seen.add(key)
        reason = next((reason for reason, applies in reasons.items() if applies), None)
        if reason:
            accounting.dropped[reason] += 1
        else:
            yield Sample(shard.name, key, images[0], text[:MAXIMUM_CAPTION_CHARACTERS] if text else None, index)


def select_samples(samples: Iterable[AnySample], keys: Collection[str], shard: Shard) -> Iterator[AnySample]:
    """Yield the samples of a shard that have one of the keys, in the order of the tar.

    Reading stops after the last of them.

    Args:
        samples: samples of the shard, from `read_shard` or `read_samples`.
        keys: keys of embedded samples, without duplicates.
        shard: the shard that is read.

    Raises:
        SimgapError: The shard lacks a sample, or it is remote and was replaced while it was read.
    """
    missing = dict.fromkeys(keys)
    for sample in samples:
        if sample.key in missing:
            del missing[sample.key]
            yield sample
            if not missing:
                _check_unchanged(shard)
                return
    if missing:
        raise SimgapError(
            f"{shard}: lacks {len(missing)} of the {len(keys)} samples to read, {next(iter(missing))!r} first; it changed "
            "after it was embedded, or it is damaged: restore the shard or embed the set again"
        )


@contextmanager
def open_writer(path: Path) -> Iterator[webdataset.TarWriter]:
    """Open a new shard for `write_sample`. The same samples give the same bytes: no time and no owner is stored."""
    options = {"user": "", "group": "", "mode": 0o644, "mtime": 0}
    with path.open("wb") as stream, webdataset.TarWriter(stream, encoder=False, keep_meta=True, **options) as writer:
        yield writer


def write_sample(writer: webdataset.TarWriter, key: str, members: Mapping[str, bytes]) -> None:
    """Write a sample to a shard. `members` maps suffixes to contents; their order is the order in the tar."""
    for suffix, content in members.items():
        # TarWriter sorts the members of one call by suffix. With a call for each member they keep their order.
        writer.write({"__key__": key, suffix: content})
