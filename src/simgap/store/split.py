"""Read and write splits.

A split is stored as one bit for each pool row, and as a JSON file that describes the split.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output, read_json, write_json
from simgap.store.arrays import read_array

KEEP_FILE = "keep.npy"
INFO_FILE = "split.json"
DEGENERATE_SHARE = 0.2


@dataclass(frozen=True)
class Split:
    """The description of a split: its rule, and the number of pool rows that the rule keeps.

    Attributes:
        rule: The name of the rule: `full`, `imagenet-like`, `dissimilar`, `similar`, `random` or `matched`.
        parameters: The parameters of the rule.
        benchmarks: The benchmarks whose queries the rule used.
        threshold: The threshold of an imagenet-like split. None for other rules. An imagenet-like split keeps a row if
            similarity(row, query) - similarity(query, reference) <= threshold for every query.
        kept: The number of pool rows that the split keeps. Reference rows do not count.
        pool_rows: The number of all pool rows.
        kept_description: A sentence about which rows the split keeps.
        reference_rows: Whether the reference images are a part of the training data.
        row_order: The hash of the pool rows that the bits refer to (`Embeddings.row_order`).
        controls: The name of the split that this split is a control for. None if this split is not a control.
    """

    rule: str
    parameters: dict[str, Any]
    benchmarks: list[str]
    threshold: float | None
    kept: int
    pool_rows: int
    kept_description: str
    reference_rows: bool
    row_order: str
    controls: str | None


def is_degenerate(split: Split, full_rows: int) -> bool:
    """Return whether a split is imagenet-like and keeps less than a fifth of the rows of full.

    Such a small split no longer represents the pool.

    Args:
        split: The description of the split.
        full_rows: The number of rows that the split full keeps.
    """
    return split.rule == "imagenet-like" and split.kept < DEGENERATE_SHARE * full_rows


def write_split(split: Split, keep: NDArray[np.bool_], out: Path) -> dict[str, Any]:
    """Write a split into a folder.

    Args:
        split: The description of the split.
        keep: Which rows the split keeps, bool [pool rows].
        out: The folder to write.

    Returns:
        The description as metrics, by attribute name.

    Raises:
        ValueError: The counts in `split` do not match `keep`.
    """
    if int(keep.sum()) != split.kept or len(keep) != split.pool_rows:
        raise ValueError(
            f"{out}: `keep` keeps {keep.sum()} of {len(keep)} rows, but `split` says {split.kept} of {split.pool_rows}; "
            "both must agree"
        )
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        np.save(partial / KEEP_FILE, np.packbits(keep, bitorder="little"))
        write_json(partial / INFO_FILE, asdict(split))
    return asdict(split)


def read_split(folder: Path) -> Split:
    """Read the description of a split from the folder of the split.

    Raises:
        SimgapError: The file is missing or does not describe a split.
    """
    content = read_json(folder / INFO_FILE)
    try:
        return Split(**content)
    except TypeError as error:
        raise SimgapError(
            f"{folder / INFO_FILE}: the file does not describe a split ({error}); make the split again"
        ) from None


def read_bits(source: Path | IO[bytes], pool_rows: int, name: object = None) -> NDArray[np.uint8]:
    """Read the packed bits of a split.

    Args:
        source: The path of `keep.npy`, or a stream of the bytes of that file.
        pool_rows: The number of pool rows that the split must have.
        name: The name of the source in error messages. The default is the path.

    Returns:
        The bits, uint8 [bytes]. The lowest bit of the first byte belongs to the first row.

    Raises:
        SimgapError: The file is missing or damaged, or the split has another number of pool rows.
    """
    remedy = f"each of the {pool_rows} pool rows needs one bit; make the split again"
    return read_array(source, np.uint8, shape=((pool_rows + 7) // 8,), name=name, remedy=remedy)


def read_keep(path: Path, pool_rows: int) -> NDArray[np.bool_]:
    """Read which pool rows a split keeps.

    Returns:
        Whether the split keeps each row, bool [pool rows].

    Raises:
        SimgapError: The file is missing or damaged, or the split has another number of pool rows.
    """
    return np.unpackbits(read_bits(path, pool_rows), count=pool_rows, bitorder="little").astype(np.bool_)
