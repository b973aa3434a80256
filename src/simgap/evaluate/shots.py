"""Which reference images are the shots of few-shot classification: the same ones for every split and seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simgap.core.errors import SimgapError
from simgap.data.shards import Accounting, Sample, find_shards, read_shard
from simgap.params.evaluate import FewShotParameters
from simgap.store.embeddings import Embeddings


def shot_order(labels: NDArray[np.int64], seed: tuple[int, int]) -> NDArray[np.int64]:
    """Give each image's place in the draw of its class, int64 [images]: the first k of a class are its k shots."""
    place = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        place[np.random.default_rng([*seed, int(label)]).permutation(of_class)] = np.arange(len(of_class))
    return place


class Shots:
    """The shots of every draw, chosen among the reference images that could be read when they were embedded.

    Attributes:
        rows: of the reference, every shot of any draw, ascending int64 [shots].
        labels: their classes, int64 [shots].

    Raises:
        SimgapError: the reference was embedded without metadata or labels, a label is outside the class list, or a class has
            fewer images than the largest number of shots.
    """

    def __init__(
        self, parameters: FewShotParameters, reference: Path, embeddings: Path, classnames: tuple[str, ...]
    ) -> None:
        self.reference = reference
        self._table = Embeddings(embeddings).metadata(["shard", "key", "label"])
        labels = self._table.column("label").to_numpy().astype(np.int64)
        if labels.max(initial=0) >= len(classnames):
            raise SimgapError(
                f"{embeddings}: label {labels.max()} is outside the class list of {len(classnames)} names; "
                "embed the reference anew"
            )
        most = max(parameters.shots)
        for name, images in zip(classnames, np.bincount(labels, minlength=len(classnames)), strict=True):
            if images < most:
                raise SimgapError(
                    f"evaluate.few_shot.shots: {most} is more than the {images} readable reference images of class {name!r}"
                )
        places = np.stack([shot_order(labels, (parameters.seed, draw)) for draw in range(parameters.draws)])
        self.rows = np.flatnonzero((places < most).any(axis=0))
        self.labels = labels[self.rows]
        self._places = places[:, self.rows]

    def chosen(self, draw: int, shots: int) -> NDArray[np.int64]:
        """Give the positions in `rows` of a draw's first `shots` images of each class; fewer shots are a part of more."""
        return np.flatnonzero(self._places[draw] < shots)

    def samples(self) -> Iterator[Sample]:
        """Stream the shots in the order of `rows`; shards without one are not opened.

        Raises:
            SimgapError: the reference does not hold them.
        """
        table = self._table.take(pa.array(self.rows))
        wanted: dict[str, list[str]] = {}
        for shard, key in zip(table.column("shard").to_pylist(), table.column("key").to_pylist(), strict=True):
            wanted.setdefault(shard, []).append(key)
        shards = {shard.name: shard for shard in find_shards(self.reference)}
        for name, keys in wanted.items():
            asked = set(keys)
            samples = read_shard(shards[name], Accounting(), caption=False, label=True) if name in shards else ()
            found = {sample.key: sample for sample in samples if sample.key in asked}
            for key in keys:
                if key not in found:
                    raise SimgapError(
                        f"{self.reference / name}: {key!r} is not there any more; embed the reference anew"
                    )
                yield found[key]
