"""Compute fingerprints of input folders."""

from __future__ import annotations

from pathlib import Path

from simgap.core.files import sha256_of
from simgap.data.manifest import MANIFEST


def fingerprint(folder: Path) -> list[tuple[str, int, int | str]]:
    """Return the relative path, the size and the modification time in nanoseconds of every file below a folder.

    Cache keys contain this list, so a stage writes its output again if an input file changes. For a manifest, the list
    contains the SHA-256 instead of the time. A manifest that is written again with the same content therefore keeps its
    fingerprint.
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
