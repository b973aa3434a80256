"""Read and write NumPy arrays (.npy), and read Parquet tables.

A damaged file raises a SimgapError with a message of one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output


def read_array(
    source: Path | IO[bytes],
    *dtypes: type[np.generic],
    shape: tuple[int | None, ...] | None = None,
    mapped: bool = False,
    name: object = None,
    remedy: str = "",
) -> NDArray[Any]:
    """Read an array from an .npy file. Pickled objects are refused.

    Args:
        source: The path of a file, or a stream of the bytes of a file.
        dtypes: The allowed dtypes. If no dtype is given, all dtypes are allowed.
        shape: The required size of each dimension. None stands for a dimension of any size. By default, all shapes are allowed.
        mapped: Whether to map the file into memory instead of reading it. Streams are always read.
        name: The name of the source in error messages. The default is the path.
        remedy: The end of every error message. It says what the user can do about the file.

    Returns:
        The array. A mapped array is read-only.

    Raises:
        SimgapError: The file is missing or damaged, or the array has another dtype or shape.
    """
    where, ending = name or source, f"; {remedy}" if remedy else ""
    try:
        if not isinstance(source, Path):
            array: NDArray[Any] = np.lib.format.read_array(source, allow_pickle=False)
        elif mapped:
            array = np.lib.format.open_memmap(source, mode="r")
        else:
            with source.open("rb") as stream:
                array = np.lib.format.read_array(stream, allow_pickle=False)
    except FileNotFoundError:
        raise SimgapError(f"{where}: no such file{ending}") from None
    except (ValueError, EOFError, OSError) as error:
        raise SimgapError(f"{where}: the file cannot be read as a NumPy array ({error}){ending}") from None
    fits = shape is None or (
        array.ndim == len(shape)
        and all(expected in (None, size) for expected, size in zip(shape, array.shape, strict=True))
    )
    if (dtypes and array.dtype not in dtypes) or not fits:
        wanted = " or ".join(dtype.__name__ for dtype in dtypes) or "any dtype"
        sizes = "..." if shape is None else ", ".join("*" if size is None else str(size) for size in shape)
        raise SimgapError(
            f"{where}: the array is {array.dtype} {list(array.shape)}; it must be {wanted} [{sizes}]{ending}"
        )
    return array


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array to an .npy file. A write that fails leaves no partial file behind."""
    with atomic_output(path) as partial, partial.open("wb") as stream:
        np.save(stream, array)


@contextmanager
def _open_parquet(path: Path, remedy: str) -> Iterator[pq.ParquetFile]:
    ending = f"; {remedy}" if remedy else ""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise SimgapError(f"{path}: no such file{ending}") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SimgapError(f"{path}: the file cannot be read as a Parquet table ({reason}){ending}") from None


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet table.

    Raises:
        SimgapError: The file is missing or is not a Parquet table.
    """
    with _open_parquet(path, "give the path of a Parquet table") as file:
        return list(file.schema_arrow.names)


def read_parquet(path: Path, columns: list[str], remedy: str = "", *, others: bool = False) -> pa.Table:
    """Read columns of a Parquet table, and check the values.

    Args:
        path: The path of the file.
        columns: The names of the columns to read. The table must have all of them.
        remedy: The end of every error message. It says what the user can do about the file.
        others: Whether to read the other columns of the table too.

    Returns:
        The table with the requested columns.

    Raises:
        SimgapError: The file is missing or damaged, lacks a column, or contains text that is not UTF-8.
    """
    with _open_parquet(path, remedy) as file:
        missing = [column for column in columns if column not in file.schema_arrow.names]
        if missing:
            raise SimgapError(f"{path}: the table has no column {missing[0]}{f'; {remedy}' if remedy else ''}")
        table = file.read(None if others else columns)
        # This check finds text that is not UTF-8. Without it, the error would come later, in code that does not know the file.
        table.validate(full=True)
        return table
