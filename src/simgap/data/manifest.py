"""Read and write manifests of shards in an object store.

A manifest is a CSV file that replaces a folder of shards. It lists the address, the size and the etag of each shard.
"""

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
# Each field of a line must match its pattern. An address has a protocol and ends with `.tar`. A size has at most 18 digits,
# which are enough for any file. An etag is any text.
PATTERNS = [re.compile(r"[^:/]+://.*\.tar", re.DOTALL), re.compile(r"[0-9]{1,18}"), re.compile(r".+", re.DOTALL)]


def write_manifest(shards: Iterable[RemoteShard], out: Path) -> None:
    """Write a manifest to the new folder `out`.

    The manifest has one line for each shard, in the given order. Equal shards give equal bytes.
    """
    with atomic_output(out) as partial:
        partial.mkdir()
        with (partial / MANIFEST).open("w", encoding="utf-8", newline="") as stream:
            lines = csv.writer(stream, lineterminator="\n")
            lines.writerow(FIELDS)
            lines.writerows(astuple(shard) for shard in shards)


def read_manifest(path: Path) -> list[RemoteShard]:
    """Read a manifest, and return its shards sorted by name.

    Raises:
        SimgapError: The file is not a manifest, or a line does not describe a shard, or two shards have the same name.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            header, *lines = csv.reader(stream, strict=True)
    except (ValueError, csv.Error) as error:
        raise SimgapError(f"{path}: is not a manifest of shards ({error}); run `dvc repro` to write one") from None
    except OSError as error:
        raise SimgapError(f"{path}: cannot be read ({error.strerror}); make the manifest readable") from None
    if header != FIELDS or not lines:
        raise SimgapError(
            f"{path}: begins with {reprlib.repr(header)} and lists {len(lines)} shards; it should begin with {FIELDS} "
            "and list at least 1"
        )
    for number, line in enumerate(lines, 2):
        if len(line) != len(FIELDS) or not all(map(re.Pattern.fullmatch, PATTERNS, line)):
            raise SimgapError(
                f"{path}: line {number}: {reprlib.repr(line)} should be an address (s3://BUCKET/NAME.tar), a size in bytes "
                "and an etag; run `dvc repro` to write a manifest"
            )
    shards = sorted((RemoteShard(address, int(size), etag) for address, size, etag in lines), key=lambda s: s.name)
    for shard, following in itertools.pairwise(shards):
        if shard.name == following.name:
            raise SimgapError(
                f"{path}: lists {shard.address!r} and {following.address!r}, which have the same name; rename one"
            )
    return shards
