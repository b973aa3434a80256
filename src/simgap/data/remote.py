"""Shards in an object store, through any of fsspec's file systems: listed, and read as one stream each."""

from __future__ import annotations

import functools
import io
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from simgap.core.errors import SimgapError

Result = TypeVar("Result")

# A GET's bytes, and how many of those an open shard holds: one that is read from, the one before, the one that is on its way.
BLOCK = 8 * 2**20
HELD = 3
# What tar reading is served from.
BUFFER = 2**20
# How often one and the same thing is tried, and how long after the first failure at most, in seconds; twice that after the next.
TRIES = 6
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# Where fsspec's file systems tell one content from another; a time is the last resort, of local files and of memory.
VERSIONS = ("ETag", "etag", "mtime", "LastModified", "created")
# A protocol, and something behind it.
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^:/].*|(file|local|memory|hdfs):///.*", re.DOTALL)
AS_IT_SHOULD_BE = "it should be as s3://BUCKET/FOLDER"
# A retry must not move on the random numbers of a training.
_random = random.SystemRandom()


@dataclass(frozen=True, order=True)
class RemoteShard:
    """A shard as its manifest has it; where shards are read it is taken as a Path is.

    Attributes:
        address: any of fsspec's, as s3://BUCKET/KEY.
        size: bytes.
        etag: the store's, or, of a file system that has none, the time of the last change.
    """

    address: str
    size: int
    etag: str

    @property
    def name(self) -> str:
        """The file's name, which the shard's samples have as theirs."""
        return self.address.rpartition("/")[2]

    @property
    def parent(self) -> str:
        """The address without the name."""
        return self.address.rpartition("/")[0]

    def __str__(self) -> str:
        return self.address

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """Open the shard as one stream of bytes, see `stream`."""
        return stream(self)

    def check(self) -> None:
        """Style whether the shard is still the one of its manifest, as `simgap.data.remote.check` does."""
        from simgap.data.remote import check

        check(self)


def _file_system(address: str) -> tuple[Any, str]:
    """Give the file system of an address and the path in it. Credentials and endpoint are what the environment says."""
    if not ADDRESS.fullmatch(address):
        raise SimgapError(f"{address!r}: is no address; {AS_IT_SHOULD_BE}")
    # Only studies with remote shards pay for the import.
    import fsspec

    try:
        system, path = fsspec.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        raise SimgapError(f"{address}: needs a package that is not installed ({_reason(error)})") from None
    except (ValueError, TypeError, AttributeError) as error:
        # Of what a file system asks for and the address does not say, it is Python that complains.
        raise SimgapError(
            f"{address}: is no address that fsspec can open ({_reason(error)}); {AS_IT_SHOULD_BE}"
        ) from None
    if "s3" in system.protocol:
        # botocore tries a request again as AWS_MAX_ATTEMPTS and AWS_RETRY_MODE say. s3fs tries that five times, and what it
        # did so five times: half an hour where a server does not answer. What is left to retry is done here, once.
        system.retries = 1
    return system, path


@functools.cache
def _final_errors() -> tuple[type[Exception], ...]:
    """Return the errors that no further try can mend."""
    from botocore import exceptions

    credentials = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
    return (FileNotFoundError, PermissionError, exceptions.ParamValidationError, *credentials)


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _persistently(address: str, work: Callable[[], Result]) -> Result:
    """Do what may fail for a while, again and again after random waits ("full jitter": Brooker, AWS Architecture Blog, 2015).

    Raises:
        SimgapError: it failed `TRIES` times in a row, or in a way that will not mend.
    """
    reason = ""
    for number in range(TRIES):
        if number:
            time.sleep(_random.uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2 ** (number - 1))))
        try:
            return work()
        except SimgapError:
            raise
        except _final_errors() as error:
            raise SimgapError(f"{address}: cannot be read ({_reason(error)})") from None
        except Exception as error:
            # File systems raise OSError and what the libraries below them do: aiohttp's, botocore's own.
            reason = _reason(error)
    raise SimgapError(f"{address}: cannot be read, {TRIES} times in a row ({reason})")


def _version(info: dict[str, Any]) -> str:
    """Give what tells a file's content from another one, of what a file system says about the file; else an empty text."""
    found = next((info[key] for key in VERSIONS if info.get(key)), "")
    # One file system may tell a time in both ways.
    return str(found.timestamp() if isinstance(found, datetime) else found).strip('"')


def list_shards(address: str) -> list[RemoteShard]:
    """List the tars right below an address, in the order of their names.

    Raises:
        SimgapError: the address is not that of a folder, there is no tar, the store cannot be reached or refuses, or it tells
            neither size nor version of a tar.
    """
    folder = address.rstrip("/")
    if folder.endswith(".tar"):
        raise SimgapError(f"{address}: names a shard; it should be the folder, {folder.rpartition('/')[0]}")

    def tars() -> list[dict[str, Any]]:
        system, path = _file_system(address)
        entries = [entry for entry in system.ls(path, detail=True) if entry["name"].endswith(".tar")]
        # A listing has a link's own kind and time, not the file's.
        return [system.info(entry["name"]) if entry.get("islink") else entry for entry in entries]

    shards = []
    for entry in _persistently(address, tars):
        if entry["type"] == "file":
            place = f"{folder}/{entry['name'].rpartition('/')[2]}"
            if entry.get("size") is None or not _version(entry):
                raise SimgapError(
                    f"{place}: its store tells neither etag nor time of change, so it cannot be versioned"
                )
            shards.append(RemoteShard(place, entry["size"], _version(entry)))
    if not shards:
        raise SimgapError(f"{address}: holds no .tar; it should hold webdataset shards (00000.tar, ...)")
    return sorted(shards)


def _check(shard: RemoteShard, info: dict[str, Any]) -> None:
    if (info["size"], _version(info)) != (shard.size, shard.etag):
        raise SimgapError(
            f"{shard}: has {info['size']} bytes and the etag {_version(info)}, its manifest says {shard.size} and "
            f"{shard.etag}; bring the old one back, or list anew with `dvc repro --force manifest`"
        )


def check(shard: RemoteShard) -> None:
    """Ask the store whether a shard is still the one of its manifest: after it was read, for what was read then counts.

    Only S3 is asked so with every block; elsewhere what comes after a shard's replacement may look like the end of a tar.

    Raises:
        SimgapError: it is another one, is gone, or the store cannot be reached.
    """

    def info() -> dict[str, Any]:
        system, path = _file_system(shard.address)
        return system.info(path)  # type: ignore[no-any-return]

    _check(shard, _persistently(shard.address, info))


class _Stream(io.RawIOBase):
    """A shard's bytes; each of them comes once, whatever failed on the way."""

    def __init__(self, shard: RemoteShard) -> None:
        super().__init__()
        self._shard = shard
        self._position = 0
        self._file: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._shard.size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        # Not over a block's end: what was read of one is not asked for again because the next one fails.
        count = min(len(view), max(0, self._shard.size - self._position), BLOCK - self._position % BLOCK)
        if count:
            view[:count] = _persistently(self._shard.address, lambda: self._read(count))
            self._position += count
        return count

    def close(self) -> None:
        self._forget()
        super().close()

    def _read(self, count: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._opened()
            self._file.seek(self._position)
            found: bytes = self._file.read(count)
            if len(found) != count:
                raise OSError(f"{len(found)} bytes came where {count} should")
        except Exception:
            # It is opened anew, and looked whether it is still the same.
            self._forget()
            raise
        return found

    def _opened(self) -> Any:
        """Open what fetches blocks, the next one ahead; of s3fs every GET has If-Match with the etag that is checked here."""
        shard = self._shard
        system, path = _file_system(shard.address)
        file = system.open(path, "rb", block_size=BLOCK, cache_type="background", cache_options={"maxblocks": HELD})
        try:
            _check(shard, getattr(file, "details", None) or system.info(path))
        except Exception:
            file.close()
            raise
        return file

    def _forget(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):
                file.close()


def stream(shard: RemoteShard) -> io.BufferedReader:
    """Open a shard as one stream of bytes that can seek; memory is `HELD` blocks of `BLOCK` bytes.

    Time-outs, resets, bodies that are cut off and errors of the server are tried again, from the block on that failed.
    Its reads raise SimgapError, never OSError, so that no failure of the network looks like the end of a tar: where the shard
    is not that of the manifest, or could not be read in several tries. Where it is replaced while it is read, S3 says so at
    the next block; what was read of another store, and an empty shard, is to be checked by `check` afterwards.
    """
    return io.BufferedReader(_Stream(shard), BUFFER)
