"""Files and folders that are either complete or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from simgap.core.errors import SimgapError

# Errors of a file system without hard links, of one that allows no more links to a file, and of a link across file systems.
NO_HARD_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
LOCK_FILE = "lock"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, or a folder and everything in it. Do nothing if the path does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Write a file or folder under a temporary name, and rename it to `path` when the block ends without an error.

    The content is flushed to the disk before the rename. Until then, the old output stays in place. If the block raises, the
    temporary output is removed. A file replaces a file atomically. An old folder is removed before the new one is renamed, so
    a kill between the two steps leaves no folder.

    Args:
        path: The file or folder to write.

    Yields:
        The temporary path, in the same folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    remove(partial)
    try:
        yield partial
        for child in [partial, *(partial.rglob("*") if partial.is_dir() else ())]:
            _sync(child)
        if path.is_dir() or partial.is_dir():
            remove(path)
        partial.replace(path)
        _sync(path.parent)
    except BaseException:
        remove(partial)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Link `target` to the file `source`, or copy the file if the file system has no hard links.

    Raises:
        OSError: `source` does not exist, `target` exists, or `target` cannot be written.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_HARD_LINK:
            raise
        shutil.copyfile(source, target)


@contextmanager
def resumable_output(out: Path, doing: str) -> Iterator[Path]:
    """Open the hidden folder `.OUT.DOING` for finished parts of `out`, and remove it when the block ends without an error.

    The folder outlives a killed process, so that the next one can continue from the finished parts.

    Args:
        out: The output that the parts belong to.
        doing: What is done, a word in the folder's name.

    Yields:
        The folder.

    Raises:
        SimgapError: Another process is writing `out`.
    """
    folder = out.with_name(f".{out.name}.{doing}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK_FILE, timeout=0):
            try:
                yield folder
            except BaseException:
                if {child.name for child in folder.iterdir()} <= {LOCK_FILE}:
                    remove(folder)
                raise
    except Timeout:
        raise SimgapError(f"{out}: another process is writing it") from None
    remove(folder)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a metric must be finite, got {value}")
        return float(f"{value:.9g}")
    return value


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with sorted keys and floats of nine significant digits. Equal content gives equal bytes.

    Raises:
        ValueError: A float is not finite.
    """
    text = json.dumps(_rounded(content), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        SimgapError: The file is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SimgapError(f"{path}: no such file") from None
    except OSError as error:
        raise SimgapError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise SimgapError(f"{path}: not JSON ({error})") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder.

    The hash of a folder covers the relative names and the hashes of its files, in sorted order.

    Raises:
        SimgapError: The path does not exist.
    """
    if not path.exists():
        raise SimgapError(f"{path}: no such file or folder")
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(path.rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
