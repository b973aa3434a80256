"""Fingerprints of input folders."""

from __future__ import annotations

from pathlib import Path

from simgap.core.files import sha256_of
from simgap.data.manifest import MANIFEST


def fingerprint(folder: Path) -> list[tuple[str, int, int | str]]:
    """Name, size and modification time of a folder's files: what a scratch folder's identity holds of its inputs.

    Of a manifest its hash instead of a time: listed anew and found the same, it stands for the same shards.
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
