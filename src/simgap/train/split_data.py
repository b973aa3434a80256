"""Find the training data of a split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simgap.clip.config import read_model_config
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
        shards: The shards, each with the keys of the samples to train on.
        kept_rows: Number of pool rows that the split keeps.
        reference_rows: Number of reference rows, or 0 if the reference is not added.
        cache_key: Hashes and class names that identify the training data. If the data change, this key changes.
    """

    shards: list[TrainingShard]
    kept_rows: int
    reference_rows: int
    cache_key: dict[str, Any]

    @property
    def samples(self) -> int:
        """Return the number of samples in all shards."""
        return self.kept_rows + self.reference_rows


def training_key(parameters: TrainParameters) -> dict[str, Any]:
    """Return the parameters and the model config that determine the state of a training run.

    The number of processes is left out, because a run may resume with another number of processes.
    """
    values = {name: value for name, value in asdict(parameters).items() if name != "processes"}
    return {**values, "config": read_model_config(parameters.model)}


def read_split_data(
    keep_file: Path, embeddings: Path, pool: Path, reference: Path, classnames: Path, add_reference: bool
) -> SplitData:
    """Find the samples that a model trains on for a split.

    Args:
        keep_file: The split's keep.npy.
        embeddings: Folder of the embeddings. The function reads only the metadata. They contain the shard and the key of each
            row.
        pool: Folder of the pool's shards.
        reference: Folder of the reference's shards.
        classnames: File with the class names of the reference.
        add_reference: Whether to add the reference. A split without pool rows always gets the reference.

    Raises:
        SimgapError: A file is missing or damaged, or the shard of a row is missing.
    """
    pool_embeddings = Embeddings(embeddings / "pool")
    keep = read_keep(keep_file, pool_embeddings.rows)
    shards = kept_shards(pool, pool_embeddings.metadata_parts(["shard", "key"]), keep)
    cache_key: dict[str, Any] = {
        "rows": sha256_of(embeddings / "pool" / "metadata"),
        "keep": sha256_of(keep_file),
        "pool": fingerprint(pool),
    }
    reference_rows = 0
    if add_reference or not keep.any():
        names = read_lines(classnames, "one class name a line")
        reference_embeddings = Embeddings(embeddings / "reference")
        reference_rows = reference_embeddings.rows
        rows = reference_embeddings.metadata_parts(["shard", "key"])
        shards += kept_shards(reference, rows, np.ones(reference_rows, np.bool_), names)
        cache_key |= {"reference": fingerprint(reference), "classnames": names}
    return SplitData(shards, int(keep.sum()), reference_rows, cache_key)
