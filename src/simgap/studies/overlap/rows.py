"""Count the rows that the splits of two revisions have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.params.schema import Params
from simgap.store.split import read_bits
from simgap.studies.revisions import Revision

METADATA = "data/embeddings/pool/metadata"
KEPT, PRUNED = "kept", "pruned"
# Metadata are read in batches of rows. Bits are counted in blocks of bytes. Memory grows with both sizes.
BATCH_ROWS, BLOCK_BYTES = 65536, 1 << 20

Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class Overlap:
    """The overlap of two splits of the same name, counted in rows of one kind: kept or pruned.

    Attributes:
        split: The name of both splits.
        rows: The kind of rows: `kept` or `pruned`. Pruned rows are the rows of full that a split leaves out.
        first, second: The number of rows of this kind in the first and the second revision.
        both: The number of rows that are of this kind in both revisions.
        expected: The expected value of `both` for two random sets of the same sizes. Each set is sampled from the split full of
            its revision. If the split is full, each set is sampled from the pool.
    """

    split: str
    rows: str
    first: int
    second: int
    both: int
    expected: float

    def _index(self, both: float) -> float | None:
        union = self.first + self.second - both
        return both / union if union else None

    @property
    def jaccard(self) -> float | None:
        """The Jaccard index: the number of rows in both revisions, divided by the number of rows in at least one revision.

        None if neither revision has rows of this kind.
        """
        return self._index(self.both)

    @property
    def by_chance(self) -> float | None:
        """The Jaccard index of two random sets with `expected` rows in common.

        None if neither revision has rows of this kind.
        """
        return self._index(self.expected)


def count(*bits: Bits) -> int:
    """Count the bits that are set in all of the arrays.

    The bits are counted in blocks, so the function needs memory for one block only.

    Args:
        *bits: Arrays of packed bits, uint8 [bytes]. All arrays have the same length.
    """
    total = 0
    for start in range(0, len(bits[0]), BLOCK_BYTES):
        block = bits[0][start : start + BLOCK_BYTES]
        for other in bits[1:]:
            block = block & other[start : start + BLOCK_BYTES]
        total += int(np.bitwise_count(block).sum(dtype=np.int64))
    return total


def overlaps(split: str, pair: tuple[Bits, Bits], fulls: tuple[Bits, Bits], pool_rows: int) -> list[Overlap]:
    """Compare the rows that two splits keep, and the rows that the two splits prune.

    Args:
        split: The name of both splits.
        pair: The bits of the split in the first and the second revision, as in `keep.npy`: two arrays, uint8 [bytes].
        fulls: The bits of full in the first and the second revision.
        pool_rows: The number of pool rows.

    Returns:
        The overlap of the kept rows, then the overlap of the pruned rows. For the split full, only the overlap of the kept
        rows.
    """

    def expected(first: int, second: int) -> float:
        if split == "full":
            return first * second / pool_rows if pool_rows else 0.0
        sizes = count(fulls[0]) * count(fulls[1])
        return first * second * count(*fulls) / sizes if sizes else 0.0

    found = []
    pruned = tuple(full & ~bits for full, bits in zip(fulls, pair, strict=True))
    for rows, (ours, theirs) in ((KEPT, pair), (PRUNED, pruned)):
        if split != "full" or rows == KEPT:
            first, second = count(ours), count(theirs)
            found.append(Overlap(split, rows, first, second, count(ours, theirs), expected(first, second)))
    return found


def _keys(revision: Revision) -> str:
    """Return a SHA-256 hash of the shards and keys of all pool rows in order. The hash does not depend on the embedder."""
    digest = hashlib.sha256()
    for path in revision.files(METADATA):
        with revision.open(path) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(BATCH_ROWS, columns=["shard", "key"]):
                shards, keys = batch.column("shard").to_pylist(), batch.column("key").to_pylist()
                digest.update("".join(f"{shard}\0{key}\n" for shard, key in zip(shards, keys, strict=True)).encode())
    return digest.hexdigest()


def _info(revision: Revision, split: str) -> dict[str, Any]:
    return revision.read(f"data/splits/{split}/split.json")


def _bits(revision: Revision, split: str, pool_rows: int) -> Bits:
    path = f"data/splits/{split}/keep.npy"
    with revision.open(path) as stream:
        return read_bits(stream, pool_rows, revision.where(path))


def _check_rows(first: Revision, second: Revision) -> None:
    """Check that two revisions have the same pool rows in the same order.

    Each split records a hash of the pool rows and of the embedder. Equal hashes mean equal rows. Different hashes may also come
    from different embedders. In that case, the function compares the shards and keys of all rows.
    """
    ours, theirs = _info(first, "full"), _info(second, "full")
    if ours["row_order"] == theirs["row_order"]:
        return
    if ours["pool_rows"] != theirs["pool_rows"] or _keys(first) != _keys(second):
        raise SimgapError(
            f"{second.name}: the pool has other rows than the pool of {first.name} ({theirs['pool_rows']} and "
            f"{ours['pool_rows']}), or another order of rows; compare revisions with the same pool and the same embedded images"
        )


def names_of(params: Params) -> list[str]:
    """Return the names of all splits of a study, including the splits that are not trained."""
    return ["full", *(split for rule in params.prune.rules().values() for split in rule)]


def compare_rows(first: Revision, second: Revision) -> Iterator[Overlap]:
    """Yield the overlaps of all splits that exist in both revisions under the same name. Other splits are skipped.

    The function needs six bits of memory for each pool row.

    Raises:
        SimgapError: The revisions have different pool rows. Or a file is neither in DVC's cache nor in a DVC remote.
    """
    _check_rows(first, second)
    pool_rows = int(_info(first, "full")["pool_rows"])
    theirs = names_of(second.params())
    fulls = (_bits(first, "full", pool_rows), _bits(second, "full", pool_rows))
    for split in names_of(first.params()):
        if split in theirs:
            yield from overlaps(
                split, (_bits(first, split, pool_rows), _bits(second, split, pool_rows)), fulls, pool_rows
            )
