"""What a model of a split is trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simgap.core.files import sha256_of
from simgap.data.benchmarks import read_lines
from simgap.data.fingerprint import fingerprint
from simgap.params.train import TrainParameters
from simgap.store.embeddings import Embeddings
from simgap.store.split import read_keep
from simgap.train.data import TrainingShard, kept_shards


@dataclass(frozen=True)
class SplitData:
    """The training data of a split.

    Attributes:
        shards: Kept samples, by shard.
        kept_rows: Pool rows among them.
        reference_rows: Reference rows among them.
        cache_key: What the data depend on.
    """

    shards: list[TrainingShard]
    kept_rows: int
    reference_rows: int
    cache_key: dict[str, Any]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.kept_rows + self.reference_rows


def training_key(parameters: TrainParameters) -> dict[str, Any]:
    """Return what the state of a training depends on: not on the number of processes, so another number may resume it."""
    return {name: value for name, value in asdict(parameters).items() if name != "processes"}


def read_split_data(
    keep_file: Path, embeddings: Path, pool: Path, reference: Path, classnames: Path, add_reference: bool
) -> SplitData:
    """Find the samples that a model of a split is trained on.

    Args:
        keep_file: The split's keep.npy.
        embeddings: Folder of the embeddings; their metadata say which sample a row is.
        pool: Folder of the pool's shards.
        reference: Folder of the reference's shards.
        classnames: File of the reference's class names.
        add_reference: Whether the reference joins. It always joins a split without pool rows.

    Raises:
        SimgapError: A file is missing or damaged, or a row lies in no shard.
    """
    of_pool = Embeddings(embeddings / "pool")
    keep = read_keep(keep_file, of_pool.rows)
    shards = kept_shards(pool, of_pool.metadata_parts(["shard", "key"]), keep)
    cache_key: dict[str, Any] = {
        "rows": sha256_of(embeddings / "pool" / "metadata"),
        "keep": sha256_of(keep_file),
        "pool": fingerprint(pool),
    }
    joining = 0
    if add_reference or not keep.any():
        names = read_lines(classnames, "one class name a line")
        of_reference = Embeddings(embeddings / "reference")
        joining = of_reference.rows
        rows = of_reference.metadata_parts(["shard", "key"])
        shards += kept_shards(reference, rows, np.ones(joining, np.bool_), names)
        cache_key |= {"reference": fingerprint(reference), "classnames": names}
    return SplitData(shards, int(keep.sum()), joining, cache_key)
