"""List and read shards in an object store. Every file system of fsspec works."""

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

# Each GET fetches one block of this many bytes. Memory grows with this number, and small blocks need more requests.
BLOCK = 8 * 2**20
# An open shard keeps this many blocks in memory. These are the current block, the previous block, and the block that is being
# fetched.
HELD = 3
# The tar reader reads small pieces from a buffer of this many bytes. The buffer saves most calls of the slower stream.
BUFFER = 2**20
# A request is tried this many times. The wait before the second try is at most FIRST_DELAY seconds. This limit doubles with
# every further try, and never exceeds LONGEST_DELAY seconds.
TRIES = 6
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# The file systems of fsspec state the version of a file in one of these fields. The first field that has a value is used.
# Etags come before times. Only file systems without etags, such as local files and memory, need times.
VERSIONS = ("ETag", "etag", "mtime", "LastModified", "created")
# An address is a protocol followed by a path. Three slashes mean that the address has neither a host nor a bucket. Only the
# four protocols in the second pattern allow this.
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^:/].*|(file|local|memory|hdfs):///.*", re.DOTALL)
ADDRESS_REMEDY = "write it as s3://BUCKET/FOLDER"
# The waits are random. They use a generator of their own, so that they do not change the random numbers of a training
# program.
_random = random.SystemRandom()


@dataclass(frozen=True, order=True)
class RemoteShard:
    """A shard in an object store, as a manifest describes it. Code that reads shards can use this object like a Path.

    Attributes:
        address: Address for fsspec, such as s3://BUCKET/KEY.
        size: Size in bytes.
        etag: Etag of the shard, or the time of its last change if the file system has no etags.
    """

    address: str
    size: int
    etag: str

    @property
    def name(self) -> str:
        """The file name of the shard. `Sample.shard` is this name for each sample of the shard."""
        return self.address.rpartition("/")[2]

    @property
    def parent(self) -> str:
        """The address without the file name."""
        return self.address.rpartition("/")[0]

    def __str__(self) -> str:
        """Return the address."""
        return self.address

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """Open the shard as a stream of bytes. `stream` describes the errors and the memory."""
        return stream(self)

    def check(self) -> None:
        """Check that the store still holds the shard that the manifest lists.

        Call this method after reading. S3 refuses to serve blocks of an object that was replaced. Other stores serve the
        blocks of the new object. Such a block may look like the end of the tar.

        Raises:
            SimgapError: The shard was replaced or removed, or the store cannot be reached.
        """

        def info() -> dict[str, Any]:
            system, path = _file_system(self.address)
            return system.info(path)  # type: ignore[no-any-return]

        _compare(self, _with_retries(self.address, info))


def _file_system(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the path in this file system.

    fsspec reads the credentials and the endpoint from the environment.
    """
    if not ADDRESS.fullmatch(address):
        raise SimgapError(f"{address!r}: is not an address; {ADDRESS_REMEDY}")
    # The import of fsspec is slow, and only studies with remote shards need fsspec.
    import fsspec

    try:
        system, path = fsspec.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        raise SimgapError(f"{address}: needs a package that is not installed ({_reason(error)}); install it") from None
    except (ValueError, TypeError, AttributeError) as error:
        # If the address lacks an argument that the file system needs, Python raises TypeError or AttributeError.
        raise SimgapError(
            f"{address}: is not an address that fsspec can open ({_reason(error)}); {ADDRESS_REMEDY}"
        ) from None
    if "s3" in system.protocol:
        # botocore retries a request as AWS_MAX_ATTEMPTS and AWS_RETRY_MODE say. s3fs adds two loops of five tries each. With
        # these loops, a dead server would cost half an hour. This setting removes the loops, so only botocore and
        # `_with_retries` try again.
        system.retries = 1
    return system, path


@functools.cache
def _final_errors() -> tuple[type[Exception], ...]:
    """Return the types of errors that a retry cannot repair."""
    from botocore import exceptions

    credentials = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
    return (FileNotFoundError, PermissionError, exceptions.ParamValidationError, *credentials)


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _with_retries(address: str, work: Callable[[], Result]) -> Result:
    """Call the function `work`, and call it again after a random wait if it fails.

    The waits follow the "full jitter" rule (Brooker, AWS Architecture Blog, 2015).

    Returns:
        The result of the first call that succeeds.

    Raises:
        SimgapError: `work` failed `TRIES` times in a row, or with an error that a retry cannot repair.
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
            raise SimgapError(
                f"{address}: cannot be read ({_reason(error)}); check the address and the credentials"
            ) from None
        except Exception as error:
            # Every other error leads to a retry, because a file system may raise errors of its own library, such as aiohttp
            # or botocore.
            reason = _reason(error)
    raise SimgapError(f"{address}: could not be read in {TRIES} tries ({reason}); check the connection and the server")


def _version(info: dict[str, Any]) -> str:
    """Return the etag or the time of change from the metadata of a file. Return "" if the metadata has neither."""
    found = next((info[key] for key in VERSIONS if info.get(key)), "")
    # A file system may state a time once as a number and later as a datetime. Both must give the same text.
    return str(found.timestamp() if isinstance(found, datetime) else found).strip('"')


def list_shards(address: str) -> list[RemoteShard]:
    """List the tars directly below an address, sorted by name.

    Raises:
        SimgapError: The address is not a folder, or the folder contains no tar. Or the store cannot be reached, or it refuses
            access. Or the store states no size or no version of a tar.
    """
    folder = address.rstrip("/")
    if folder.endswith(".tar"):
        raise SimgapError(f"{address}: is a shard; give the folder of the shard, {folder.rpartition('/')[0]}")

    def tars() -> list[dict[str, Any]]:
        system, path = _file_system(address)
        entries = [entry for entry in system.ls(path, detail=True) if entry["name"].endswith(".tar")]
        # If an entry is a link, the listing describes the link itself. The shard is the target of the link, so this code asks
        # for the size and time of the target.
        return [system.info(entry["name"]) if entry.get("islink") else entry for entry in entries]

    shards = []
    for entry in _with_retries(address, tars):
        if entry["type"] == "file":
            place = f"{folder}/{entry['name'].rpartition('/')[2]}"
            if entry.get("size") is None or not _version(entry):
                raise SimgapError(
                    f"{place}: the store states no size, or neither an etag nor a time of change, so simgap could not notice "
                    "a later change; copy the shards to another store"
                )
            shards.append(RemoteShard(place, entry["size"], _version(entry)))
    if not shards:
        raise SimgapError(f"{address}: holds no .tar; it must hold webdataset shards (00000.tar, ...)")
    return sorted(shards)


def _compare(shard: RemoteShard, info: dict[str, Any]) -> None:
    if (info["size"], _version(info)) != (shard.size, shard.etag):
        raise SimgapError(
            f"{shard}: has {info['size']} bytes and the etag {_version(info)}, but its manifest says {shard.size} and "
            f"{shard.etag}; restore the old shard, or list the shards again with `dvc repro --force manifest`"
        )


class _Stream(io.RawIOBase):
    """A stream of the bytes of a shard. A failed read is repeated, and no byte is lost or delivered twice."""

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
        # A read stops at the end of a block. If the next block fails, the bytes of this block need not be fetched again.
        count = min(len(view), max(0, self._shard.size - self._position), BLOCK - self._position % BLOCK)
        if count:
            view[:count] = _with_retries(self._shard.address, lambda: self._read(count))
            self._position += count
        return count

    def close(self) -> None:
        self._close_file()
        super().close()

    def _read(self, count: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._open_file()
            self._file.seek(self._position)
            found: bytes = self._file.read(count)
            if len(found) != count:
                raise OSError(f"received {len(found)} bytes instead of {count}")
        except Exception:
            # The next try opens the file again. `_open_file` then checks that nobody replaced the shard.
            self._close_file()
            raise
        return found

    def _open_file(self) -> Any:
        """Open the shard, and check its size and etag. The file fetches one block in advance.

        s3fs sends the checked etag with every GET (If-Match).
        """
        shard = self._shard
        system, path = _file_system(shard.address)
        file = system.open(path, "rb", block_size=BLOCK, cache_type="background", cache_options={"maxblocks": HELD})
        try:
            _compare(shard, getattr(file, "details", None) or system.info(path))
        except Exception:
            file.close()
            raise
        return file

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):
                file.close()


def stream(shard: RemoteShard) -> io.BufferedReader:
    """Open a shard as a seekable stream of bytes.

    Memory: `HELD` blocks of `BLOCK` bytes.

    After a timeout, a connection reset, a truncated body or a server error, the stream repeats the block that failed. A read
    raises SimgapError if the shard differs from the manifest, or if all tries fail. It never raises OSError, because a tar
    reader would take an OSError for the end of the tar.

    If the shard is replaced during reading, S3 reports the change at the next block. Other stores do not report the change.
    An empty shard has no block, so even S3 reports nothing. Call `RemoteShard.check` after reading to find a replaced shard
    in these cases.
    """
    return io.BufferedReader(_Stream(shard), BUFFER)
