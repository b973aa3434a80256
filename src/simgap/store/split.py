"""A split on disk: one bit a pool row, and a sidecar that says where it comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output, read_json, write_json

KEEP_FILE = "keep.npy"
INFO_FILE = "split.json"
DEGENERATE_SHARE = 0.2


@dataclass(frozen=True)
class Split:
    """A rule and the pool rows that it keeps; counts are of pool rows only.

    Attributes:
        rule: full, imagenet-like, dissimilar, similar, random or matched.
        parameters: the rule's own parameters.
        benchmarks: whose queries the rule saw.
        threshold: slack of an imagenet-like split, else None.
        kept, pool_rows: rows kept, and rows there are.
        kept_description: in words, which rows were kept.
        reference_rows: whether the reference joins the training data.
        row_order: hash of the pool rows that the bits refer to (`Embeddings.row_order`).
        controls: the split whose size this one copies, or None.
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
    """Say whether an imagenet-like split keeps under a fifth of the `full_rows` of full: too little to speak for the pool."""
    return split.rule == "imagenet-like" and split.kept < DEGENERATE_SHARE * full_rows


def write_split(split: Split, keep: NDArray[np.bool_], out: Path) -> dict[str, Any]:
    """Write a split and give its metrics.

    Raises:
        ValueError: the bits do not agree with the counts.
    """
    if int(keep.sum()) != split.kept or len(keep) != split.pool_rows:
        raise ValueError(f"{out}: {keep.sum()} of {len(keep)} rows kept, recorded as {split.kept} of {split.pool_rows}")
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        np.save(partial / KEEP_FILE, np.packbits(keep, bitorder="little"))
        write_json(partial / INFO_FILE, asdict(split))
    return asdict(split)


def read_split(folder: Path) -> Split:
    """Read a split's sidecar.

    Raises:
        SimgapError: it is missing or is not a split's.
    """
    content = read_json(folder / INFO_FILE)
    try:
        return Split(**content)
    except TypeError as error:
        raise SimgapError(f"{folder / INFO_FILE}: is not a split's sidecar ({error})") from None


def read_keep(path: Path, pool_rows: int) -> NDArray[np.bool_]:
    """Read which of `pool_rows` rows are kept, bool [pool_rows].

    Raises:
        SimgapError: the file is missing or has another number of rows.
    """
    try:
        bits = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise SimgapError(f"{path}: no such file") from None
    except (ValueError, EOFError, OSError) as error:
        raise SimgapError(f"{path}: is no array that can be read ({error})") from None
    if bits.dtype != np.uint8 or len(bits) != (pool_rows + 7) // 8:
        raise SimgapError(
            f"{path}: holds {len(bits)} bytes of {bits.dtype}; {pool_rows} pool rows need {(pool_rows + 7) // 8} of uint8"
        )
    return np.unpackbits(bits, count=pool_rows, bitorder="little").astype(np.bool_)
