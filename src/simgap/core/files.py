"""Write files and folders that are either complete or absent."""

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

# If a hard link fails with one of these errors, the file is copied instead. The file system may have no hard links, the file
# may have too many links, or the link may cross file systems.
NO_HARD_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
LOCK_FILE = "lock"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its whole content. Do nothing if the path does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a new file or folder, and rename it to `path` if the block ends without an error.

    The content is flushed to the disk before the rename. Until then, the old output stays in place. If the block raises an
    error, the temporary output is removed. A new file replaces an old file atomically. An old folder is removed before the
    rename. If the process is killed between these two steps, neither the old folder nor the new folder exists at `path`.

    Args:
        path: The file or folder to write.

    Yields:
        The temporary path. It lies in the same folder as `path`.
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
    """Create `target` as a hard link to the file `source`. Copy the file if the link is impossible.

    Raises:
        OSError: `source` does not exist, or `target` exists, or `target` cannot be written.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_HARD_LINK:
            raise
        shutil.copyfile(source, target)


@contextmanager
def resumable_output(out: Path, doing: str) -> Iterator[Path]:
    """Create the hidden folder `.OUT.DOING` for finished parts of `out`, and remove the folder if the block succeeds.

    The folder outlives a killed process. The next process with the same output continues from the finished parts.

    Args:
        out: The output that the parts belong to.
        doing: A word for the work, such as `exporting`. The name of the folder ends with this word.

    Yields:
        The path of the folder.

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
        raise SimgapError(f"{out}: another process is writing it; wait until that process ends") from None
    remove(folder)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a metric is {value}; every metric must be finite")
        return float(f"{value:.9g}")
    return value


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file. Equal content gives equal bytes.

    Keys are sorted, and floats are rounded to nine significant digits.

    Raises:
        ValueError: A float is not finite.
    """
    text = json.dumps(_rounded(content), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        SimgapError: The file is missing, or it cannot be read, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SimgapError(f"{path}: no such file; restore it or correct the path") from None
    except OSError as error:
        raise SimgapError(f"{path}: cannot be read ({error.strerror}); it must be a readable JSON file") from None
    except ValueError as error:
        raise SimgapError(f"{path}: not JSON ({error}); correct the file or replace it") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file or folder, as hexadecimal digits.

    The hash of a folder covers the relative path and the hash of every file below the folder, in sorted order.

    Raises:
        SimgapError: The path does not exist.
    """
    if not path.exists():
        raise SimgapError(f"{path}: no such file or folder; restore it or correct the path")
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(path.rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
