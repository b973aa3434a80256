"""List and read shards in an object store, through any of fsspec's file systems."""

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

# Each GET fetches one block, in bytes.
BLOCK = 8 * 2**20
# An open shard holds this many blocks: the one that is read, the one before it, and the one that is being fetched.
HELD = 3
# The tar reader is served from a buffer of this size, in bytes.
BUFFER = 2**20
# A request is tried this many times. Before the second try, the wait is at most FIRST_DELAY seconds; this bound doubles with
# every further try, up to LONGEST_DELAY.
TRIES = 6
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# Fields in which fsspec's file systems state the version of a file. Times come last: only file systems without etags, such as
# local files and memory, need them.
VERSIONS = ("ETag", "etag", "mtime", "LastModified", "created")
# A protocol followed by a path.
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^:/].*|(file|local|memory|hdfs):///.*", re.DOTALL)
ADDRESS_REMEDY = "write it as s3://BUCKET/FOLDER"
# The waits between tries have their own source of random numbers, since they must not change those of a training.
_random = random.SystemRandom()


@dataclass(frozen=True, order=True)
class RemoteShard:
    """A shard as its manifest lists it. Code that reads shards can use it like a Path.

    Attributes:
        address: an address for fsspec, such as s3://BUCKET/KEY.
        size: size in bytes.
        etag: the etag of the store, or the time of the last change if the file system has no etags.
    """

    address: str
    size: int
    etag: str

    @property
    def name(self) -> str:
        """The file name, which samples carry as the name of their shard."""
        return self.address.rpartition("/")[2]

    @property
    def parent(self) -> str:
        """The address without the file name."""
        return self.address.rpartition("/")[0]

    def __str__(self) -> str:
        """Return the address."""
        return self.address

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """Open the shard as one stream of bytes; see `stream`."""
        return stream(self)

    def check(self) -> None:
        """Check that the store still holds the shard that the manifest lists.

        Call it after reading. S3 refuses to serve blocks of a replaced object, but other stores do not: the rest of a replaced
        shard may look like the end of the tar.

        Raises:
            SimgapError: The shard was replaced or removed, or the store cannot be reached.
        """

        def info() -> dict[str, Any]:
            system, path = _file_system(self.address)
            return system.info(path)  # type: ignore[no-any-return]

        _compare(self, _with_retries(self.address, info))


def _file_system(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it. Credentials and endpoint come from the environment."""
    if not ADDRESS.fullmatch(address):
        raise SimgapError(f"{address!r}: is not an address; {ADDRESS_REMEDY}")
    # The import takes long, and only studies with remote shards need it.
    import fsspec

    try:
        system, path = fsspec.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        raise SimgapError(f"{address}: needs a package that is not installed ({_reason(error)})") from None
    except (ValueError, TypeError, AttributeError) as error:
        # Python itself raises TypeError or AttributeError if the address lacks an argument that the file system needs.
        raise SimgapError(
            f"{address}: is not an address that fsspec can open ({_reason(error)}); {ADDRESS_REMEDY}"
        ) from None
    if "s3" in system.protocol:
        # botocore retries a request as AWS_MAX_ATTEMPTS and AWS_RETRY_MODE say. s3fs would try that five times, and that
        # again five times: half an hour if a server does not answer. `_with_retries` is the one retry above botocore's.
        system.retries = 1
    return system, path


@functools.cache
def _final_errors() -> tuple[type[Exception], ...]:
    """Return the errors that a retry cannot repair."""
    from botocore import exceptions

    credentials = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
    return (FileNotFoundError, PermissionError, exceptions.ParamValidationError, *credentials)


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _with_retries(address: str, work: Callable[[], Result]) -> Result:
    """Call a function that may fail for a while, and retry after random waits.

    The waits follow the "full jitter" rule (Brooker, AWS Architecture Blog, 2015).

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
            raise SimgapError(f"{address}: cannot be read ({_reason(error)})") from None
        except Exception as error:
            # Besides OSError, file systems raise errors of the libraries that they use, such as aiohttp and botocore.
            reason = _reason(error)
    raise SimgapError(f"{address}: could not be read in {TRIES} tries ({reason})")


def _version(info: dict[str, Any]) -> str:
    """Return the version of a file from what its file system says about it, or an empty text if it says none."""
    found = next((info[key] for key in VERSIONS if info.get(key)), "")
    # A file system may state a time as a number in one answer and as a datetime in another.
    return str(found.timestamp() if isinstance(found, datetime) else found).strip('"')


def list_shards(address: str) -> list[RemoteShard]:
    """List the tars directly below an address, sorted by name.

    Raises:
        SimgapError: The address is not a folder, it holds no tar, the store cannot be reached or refuses access, or the
            store states no size or no version of a tar.
    """
    folder = address.rstrip("/")
    if folder.endswith(".tar"):
        raise SimgapError(f"{address}: names a shard; name its folder, {folder.rpartition('/')[0]}")

    def tars() -> list[dict[str, Any]]:
        system, path = _file_system(address)
        entries = [entry for entry in system.ls(path, detail=True) if entry["name"].endswith(".tar")]
        # A listing describes the link itself, but the shard is the file that the link points to.
        return [system.info(entry["name"]) if entry.get("islink") else entry for entry in entries]

    shards = []
    for entry in _with_retries(address, tars):
        if entry["type"] == "file":
            place = f"{folder}/{entry['name'].rpartition('/')[2]}"
            if entry.get("size") is None or not _version(entry):
                raise SimgapError(
                    f"{place}: its store states no size, or neither an etag nor a time of change, so a later change could not "
                    "be noticed; copy the shards to another store"
                )
            shards.append(RemoteShard(place, entry["size"], _version(entry)))
    if not shards:
        raise SimgapError(f"{address}: holds no .tar; it should hold webdataset shards (00000.tar, ...)")
    return sorted(shards)


def _compare(shard: RemoteShard, info: dict[str, Any]) -> None:
    if (info["size"], _version(info)) != (shard.size, shard.etag):
        raise SimgapError(
            f"{shard}: has {info['size']} bytes and the etag {_version(info)}, but its manifest says {shard.size} and "
            f"{shard.etag}; restore the old shard, or list the shards again with `dvc repro --force manifest`"
        )


class _Stream(io.RawIOBase):
    """The bytes of a shard. Each byte is delivered once, also if reads fail on the way."""

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
        # A read stops at the end of a block. Otherwise bytes that were read would be fetched again if the next block fails.
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
            # The next try opens the file again, and so checks that the shard is still the same.
            self._close_file()
            raise
        return found

    def _open_file(self) -> Any:
        """Open a file that fetches one block in advance. s3fs sends the etag that is checked here with every GET (If-Match)."""
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
    """Open a shard as one stream of bytes that can seek. It holds `HELD` blocks of `BLOCK` bytes in memory.

    Time-outs, connection resets, truncated bodies and server errors are retried, from the block that failed. Reading raises
    SimgapError, never OSError, so that a network failure never looks like the end of a tar. It raises if the shard differs
    from its manifest, or could not be read in several tries. If the shard is replaced while it is read, S3 says so at the next
    block. For other stores, and for an empty shard, call `RemoteShard.check` after reading.
    """
    return io.BufferedReader(_Stream(shard), BUFFER)
