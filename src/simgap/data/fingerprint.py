"""Compute fingerprints of input folders."""

from __future__ import annotations

from pathlib import Path

from simgap.core.files import sha256_of
from simgap.data.manifest import MANIFEST


def fingerprint(folder: Path) -> list[tuple[str, int, int | str]]:
    """Return the name, size and modification time of every file in a folder.

    Cache keys contain this list, so that an output is made again if one of its input files changes. A manifest enters with
    its SHA-256 instead of its time: a new manifest with the same content stands for the same shards.
    """
    return [
        (
            file.relative_to(folder).as_posix(),
            file.stat().st_size,
            sha256_of(file) if file.name == MANIFEST else file.stat().st_mtime_ns,
        )
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
