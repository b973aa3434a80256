"""Shards that stay in an object store: a manifest of their addresses, sizes and etags stands for them."""

from __future__ import annotations

import csv
import itertools
import re
import reprlib
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output
from simgap.data.remote import RemoteShard

MANIFEST = "manifest.csv"
FIELDS = ["address", "size", "etag"]
# In this order, of a line: an address with its protocol, what is no longer than a size can be, and anything at all.
PATTERNS = [re.compile(r"[^:/]+://.*\.tar", re.DOTALL), re.compile(r"[0-9]{1,18}"), re.compile(r".+", re.DOTALL)]


def write_manifest(shards: Iterable[RemoteShard], out: Path) -> None:
    """Write the folder `out` with the manifest in it: CSV, a line a shard in the order given; equal shards give equal bytes."""
    with atomic_output(out) as partial:
        partial.mkdir()
        with (partial / MANIFEST).open("w", encoding="utf-8", newline="") as stream:
            lines = csv.writer(stream, lineterminator="\n")
            lines.writerow(FIELDS)
            lines.writerows(astuple(shard) for shard in shards)


def read_manifest(path: Path) -> list[RemoteShard]:
    """Read a manifest's shards in the order of their names.

    Raises:
        SimgapError: it is no manifest, a line of it is no shard, or two shards have one name.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            header, *lines = csv.reader(stream, strict=True)
    except (ValueError, csv.Error) as error:
        raise SimgapError(f"{path}: is no manifest of shards ({error}); `dvc repro` makes one") from None
    except OSError as error:
        raise SimgapError(f"{path}: cannot be read ({error.strerror})") from None
    if header != FIELDS or not lines:
        raise SimgapError(
            f"{path}: begins with {reprlib.repr(header)} and lists {len(lines)} shards; it should begin with {FIELDS}"
        )
    for number, line in enumerate(lines, 2):
        if len(line) != len(FIELDS) or not all(map(re.Pattern.fullmatch, PATTERNS, line)):
            raise SimgapError(
                f"{path}: line {number}: {reprlib.repr(line)} should be an address as s3://BUCKET/NAME.tar, a size in bytes "
                "and an etag; `dvc repro` makes a manifest"
            )
    shards = sorted((RemoteShard(address, int(size), etag) for address, size, etag in lines), key=lambda s: s.name)
    for shard, following in itertools.pairwise(shards):
        if shard.name == following.name:
            raise SimgapError(
                f"{path}: lists {shard.address!r} and {following.address!r}; a shard's name should be its own"
            )
    return shards
