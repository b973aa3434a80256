"""Read and write img2dataset shards.

A shard is a tar file of samples. A sample is a group of adjacent members with the same key. Its members are an image
(`KEY.jpg`, `KEY.jpeg`, `KEY.png` or `KEY.webp`), a caption (`KEY.txt`), and metadata (`KEY.json`). A labelled sample also has
a class index (`KEY.cls`).
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
# A sample with a member of more than this many bytes is dropped, because members are read into memory as a whole.
MAXIMUM_MEMBER_BYTES = 64_000_000
# The end of a tar is checked in pieces of this many bytes, which limits the memory.
CHUNK = 2**20
# Longer captions are cut to this length. Tokenizers use only the first words of a caption.
MAXIMUM_CAPTION_CHARACTERS = 10_000

Shard = Path | RemoteShard


@dataclass(frozen=True)
class Sample:
    """A sample of a shard. The image is not decoded yet.

    The shard and the key together identify a sample. The same key may occur in several shards.

    Attributes:
        shard: File name of the shard.
        key: Path of the members in the tar, up to the first dot of the file name.
        image: Encoded image.
        caption: Caption, or None if the sample has no caption.
        label: Class index, or None if the sample has no label.
    """

    shard: str
    key: str
    image: bytes
    caption: str | None
    label: int | None


class RawSample(NamedTuple):
    """All members of a sample, with the bytes that the tar contains.

    Attributes:
        key: Path of the members in the tar, up to the first dot of the file name.
        members: Content of each member, by suffix.
    """

    key: str
    members: dict[str, bytes]


AnySample = TypeVar("AnySample", Sample, RawSample)


def check_label(sample: Sample, classes: int, shard: Shard) -> None:
    """Check that the label of a sample is in the class list.

    Call this function right after each sample is read. A wrong label then stops the work before all images are processed.

    Args:
        sample: The sample. A sample without a label passes.
        classes: Number of classes.
        shard: The shard of the sample, for error messages.

    Raises:
        SimgapError: The label is not below `classes`.
    """
    if sample.label is not None and sample.label >= classes:
        raise SimgapError(
            f"{shard}: {sample.key}: label {sample.label} is outside the class list of {classes} names; "
            f"it must be below {classes}"
        )


def find_shards(folder: Path) -> list[Shard]:
    """Return the shards of a folder, sorted by name.

    The folder contains either tar files or a manifest. A manifest lists tar files in an object store.

    Raises:
        SimgapError: The folder does not exist. Or it contains neither tars nor a manifest, or it contains both.
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
    """The shards of a folder by name. Looking up an unknown name raises SimgapError."""

    def __init__(self, folder: Path) -> None:
        """Find the shards of a folder with `find_shards`."""
        super().__init__((shard.name, shard) for shard in find_shards(folder))
        self._folder = folder

    def __missing__(self, name: str) -> Shard:
        """Raise SimgapError, because the folder has no shard of this name."""
        raise SimgapError(
            f"{self._folder}: has no shard {name!r}, but embedded samples lie in it; restore the shard or embed the set again"
        )


@dataclass
class Accounting:
    """Counts of the samples of a dataset.

    The counts satisfy read = kept + dropped. This equation is an invariant in docs/architecture.md.

    Attributes:
        read: Number of samples that were read, including the dropped samples.
        dropped: Number of dropped samples by reason. Each dropped sample has exactly one reason.
        damaged_shards: Number of truncated or corrupt tars. The number of samples lost in these tars is unknown.
    """

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    damaged_shards: int = 0

    def metrics(self, kept: int) -> dict[str, int]:
        """Return the counts as metrics by name. Reasons that did not occur are left out.

        Args:
            kept: Number of kept samples.

        Raises:
            SimgapError: `read` is not the sum of `kept` and the dropped samples.
        """
        if self.read != kept + self.dropped.total():
            raise SimgapError(
                f"accounting: {self.read} samples read, but {kept} kept and {dict(self.dropped)} dropped; the counts must "
                "add up, so please report this bug"
            )
        reasons = {f"dropped/{reason}": count for reason, count in sorted(self.dropped.items()) if count}
        damaged = {"damaged_shards": self.damaged_shards} if self.damaged_shards else {}
        return {"read": self.read, "kept": kept, **reasons, **damaged}


def _ends_cleanly(stream: BinaryIO, offset: int) -> bool:
    """Return whether a tar ends correctly at `offset`. A correct end has at least one block, and only zeros."""
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
    """Yield the key, the suffix and the content of every regular file in a shard.

    If a member is too large, its content is None. If a shard is damaged, the function stops at the damage and counts the
    shard. If a remote shard cannot be read or was replaced, the function raises an error and does not count the shard.

    Args:
        shard: The shard to read.
        accounting: Counts of the dataset. If the shard is damaged, the function increases `damaged_shards`.
        only: Suffix of the members to yield. Members with another suffix are skipped. None means all members.

    Raises:
        SimgapError: A remote shard cannot be read, or it was replaced after its manifest was written.
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
            # tarfile stops without an error at the end of the tar, but also at a corrupt header. This check tells the two
            # cases apart.
            damaged = not _ends_cleanly(file, tar.offset)
    except (tarfile.TarError, OSError, EOFError):
        damaged = True
    _check_unchanged(shard)
    accounting.damaged_shards += damaged


def _check_unchanged(shard: Shard) -> None:
    if isinstance(shard, RemoteShard):
        shard.check()


def _group_members(shard: Shard, accounting: Accounting) -> Iterator[dict[str, Any]]:
    """Group adjacent members with the same key, using webdataset's own function.

    If a sample has two members with the same suffix, the first member counts.
    """
    files = (
        {"fname": f"{key}.{suffix}", "data": data, "__url__": str(shard)}
        for key, suffix, data in _read_members(shard, accounting)
    )
    yield from webdataset.tariterators.group_by_keys(files, handler=lambda _: True)


def _parse_label(raw: bytes) -> int | None:
    text = raw.decode("ascii", errors="replace").strip()
    return int(text) if text.isdigit() and text.isascii() and len(text) < 10 else None


def _is_utf8(name: str) -> bool:
    """Return whether the name of a member is valid UTF-8. tarfile decodes invalid bytes to surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def read_json_members(shard: Shard, accounting: Accounting) -> Iterator[tuple[str, bytes]]:
    """Yield the key and the content of each `KEY.json` member of a shard. Members over 64 MB are skipped."""
    yield from ((key, data) for key, _, data in _read_members(shard, accounting, only="json") if data is not None)


def read_samples(shard: Shard) -> Iterator[RawSample]:
    """Yield each sample of a shard with all its members, in the order of the tar.

    A sample needs neither an image nor a caption nor a label. The function skips samples to which one of the reasons
    `bad_name`, `duplicate_key` and `member_too_large` of `read_shard` applies.
    """
    seen: set[str] = set()
    for sample in _group_members(shard, Accounting()):
        key = sample["__key__"]
        if _is_utf8(key) and key not in seen and None not in sample.values():
            members = {suffix: data for suffix, data in sample.items() if suffix not in ("__key__", "__url__")}
            yield RawSample(key, members)
        seen.add(key)


def read_shard(shard: Shard, accounting: Accounting, *, caption: bool, label: bool) -> Iterator[Sample]:
    """Yield the samples of a shard in the order of the tar. Images are not decoded.

    A sample is dropped if one of these reasons applies. The first reason that applies is counted:

    - `bad_name`: The key of the sample is not UTF-8.
    - `duplicate_key`: An earlier sample of the shard has the same key. This reason also applies if the members of one sample
      are not adjacent.
    - `member_too_large`: A member of the sample is larger than 64 MB.
    - `no_image`: The sample has no image.
    - `no_caption`: The sample has no caption, and `caption` is true.
    - `no_label`: The sample has no label, and `label` is true.

    The key of a sample is the path of its members in the tar, up to the first dot of the file name. No member is extracted to
    the disk.

    Args:
        shard: The shard to read.
        accounting: Counts of the dataset. The function updates the counts of samples and of damaged shards.
        caption: Whether samples without a caption are dropped.
        label: Whether samples without a label are dropped.
    """
    seen: set[str] = set()
    for sample in _group_members(shard, accounting):
        accounting.read += 1
        key = sample["__key__"]
        images = [sample[suffix] for suffix in IMAGE_SUFFIXES if suffix in sample]
        text = sample["txt"].decode("utf-8", errors="replace").strip() if sample.get("txt") else None
        index = _parse_label(sample["cls"]) if sample.get("cls") else None
        # The order of the reasons matters, because the first one that applies is counted.
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

    Reading stops as soon as all keys were found.

    Args:
        samples: Samples of the shard, from `read_shard` or `read_samples`.
        keys: Keys of embedded samples, without duplicates.
        shard: The shard of the samples.

    Raises:
        SimgapError: The shard has no sample with one of the keys. Or the shard is remote and was replaced during reading.
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
            f"{shard}: lacks {len(missing)} of the {len(keys)} samples to read, {next(iter(missing))!r} first; the shard "
            "changed after it was embedded, or it is damaged; restore the shard or embed the set again"
        )


@contextmanager
def open_writer(path: Path) -> Iterator[webdataset.TarWriter]:
    """Open a new shard for `write_sample`. The tar contains no time and no owner, so equal samples give equal bytes."""
    options = {"user": "", "group": "", "mode": 0o644, "mtime": 0}
    with path.open("wb") as stream, webdataset.TarWriter(stream, encoder=False, keep_meta=True, **options) as writer:
        yield writer


def write_sample(writer: webdataset.TarWriter, key: str, members: Mapping[str, bytes]) -> None:
    """Write a sample to a shard.

    Args:
        writer: Writer of the shard, from `open_writer`.
        key: Key of the sample.
        members: Content of each member, by suffix. The tar keeps the order of the members.
    """
    for suffix, content in members.items():
        # TarWriter sorts the members of one call by suffix. One call for each member keeps the order.
        writer.write({"__key__": key, suffix: content})
