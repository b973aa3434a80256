"""A split on disk: one bit for each pool row, and a JSON file that describes the split."""

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
    """A rule and how many pool rows it keeps. All counts are of pool rows only.

    Attributes:
        rule: Full, imagenet-like, dissimilar, similar, random or matched.
        parameters: The rule's own parameters.
        benchmarks: The benchmarks whose queries the rule used.
        threshold: The slack of an imagenet-like split; None for another rule.
        kept, pool_rows: The number of rows kept, and of all rows.
        kept_description: Which rows were kept, in words.
        reference_rows: Whether the reference images join the training data.
        row_order: The hash of the pool rows that the bits refer to (`Embeddings.row_order`).
        controls: The split that this one is a control of; None if it is not a control.
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
    """Return whether an imagenet-like split keeps less than a fifth of the `full_rows` rows of full.

    So small a split no longer represents the pool.
    """
    return split.rule == "imagenet-like" and split.kept < DEGENERATE_SHARE * full_rows


def write_split(split: Split, keep: NDArray[np.bool_], out: Path) -> dict[str, Any]:
    """Write a split and return its metrics.

    Args:
        split: The description of the split.
        keep: Which rows are kept, bool [pool rows].
        out: The folder to write.

    Raises:
        ValueError: The counts in `split` do not agree with `keep`.
    """
    if int(keep.sum()) != split.kept or len(keep) != split.pool_rows:
        raise ValueError(
            f"{out}: keep has {keep.sum()} of {len(keep)} rows, but {split.kept} of {split.pool_rows} are recorded"
        )
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        np.save(partial / KEEP_FILE, np.packbits(keep, bitorder="little"))
        write_json(partial / INFO_FILE, asdict(split))
    return asdict(split)


def read_split(folder: Path) -> Split:
    """Read the description of a split.

    Raises:
        SimgapError: The file is missing or does not describe a split.
    """
    content = read_json(folder / INFO_FILE)
    try:
        return Split(**content)
    except TypeError as error:
        raise SimgapError(f"{folder / INFO_FILE}: does not describe a split ({error}); make the split again") from None


def read_bits(source: Path | IO[bytes], pool_rows: int, name: object = None) -> NDArray[np.uint8]:
    """Read the packed bits of a split, uint8 [bytes]; the first row is the lowest bit of the first byte.

    Args:
        source: A `keep.npy`, or a stream of its bytes.
        pool_rows: The number of rows that the split must have.
        name: The name of the source in errors; the path by default.

    Raises:
        SimgapError: The file is missing, damaged or not of `pool_rows` rows.
    """
    remedy = f"{pool_rows} pool rows need a bit each; make the split again"
    return read_array(source, np.uint8, shape=((pool_rows + 7) // 8,), name=name, remedy=remedy)


def read_keep(path: Path, pool_rows: int) -> NDArray[np.bool_]:
    """Read which of `pool_rows` rows a split keeps, bool [pool rows].

    Raises:
        SimgapError: The file is missing, damaged or not of `pool_rows` rows.
    """
    return np.unpackbits(read_bits(path, pool_rows), count=pool_rows, bitorder="little").astype(np.bool_)
