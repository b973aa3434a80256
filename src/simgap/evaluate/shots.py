"""Choose the reference images (shots) for few-shot classification.

The choice is the same for every split and every training seed, so that results are comparable.
"""

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
    """Shuffle the images of each class, and return the position of each image within its class, int64 [images].

    The k shots of a class are the images of the class with positions below k.
    """
    place = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        class_rows = np.flatnonzero(labels == label)
        place[np.random.default_rng([*seed, int(label)]).permutation(class_rows)] = np.arange(len(class_rows))
    return place


class Shots:
    """The shots of every draw. A draw is one random choice of reference images for each class.

    Only images with embeddings are chosen, because these images were readable.

    Attributes:
        reference: Folder of the reference's shards.
        rows: Numbers of the reference rows that are shots in at least one draw, ascending, int64 [shots].
        labels: The class of each row in `rows`, int64 [shots].
    """

    def __init__(
        self, parameters: FewShotParameters, reference: Path, embeddings: Path, classnames: tuple[str, ...]
    ) -> None:
        """Choose the shots.

        Args:
            parameters: The `evaluate.few_shot` parameters.
            reference: Folder of the reference's shards.
            embeddings: Folder of the reference's embeddings. The constructor reads only the metadata.
            classnames: The class names of the reference.

        Raises:
            SimgapError: The embeddings have no metadata or labels, or a label is outside the class list. A class has fewer
                images than the largest number of shots.
        """
        self.reference = reference
        self._table = Embeddings(embeddings).metadata(["shard", "key", "label"])
        labels = self._table.column("label").to_numpy().astype(np.int64)
        if labels.max(initial=0) >= len(classnames):
            raise SimgapError(
                f"{embeddings}: label {labels.max()} is outside the class list, which has {len(classnames)} names; embed the "
                "reference again"
            )
        most = max(parameters.shots)
        for name, images in zip(classnames, np.bincount(labels, minlength=len(classnames)), strict=True):
            if images < most:
                raise SimgapError(
                    f"evaluate.few_shot.shots: {most} is too many, because the reference has only {images} readable images of "
                    f"class {name!r}; choose at most {images}"
                )
        places = np.stack([shot_order(labels, (parameters.seed, draw)) for draw in range(parameters.draws)])
        self.rows = np.flatnonzero((places < most).any(axis=0))
        self.labels = labels[self.rows]
        self._places = places[:, self.rows]

    def chosen(self, draw: int, shots: int) -> NDArray[np.int64]:
        """Return the shots of one draw. Each class has `shots` images.

        Within a draw, the shots for a smaller number are a subset of the shots for a larger number.

        Args:
            draw: Number of the draw, from 0.
            shots: Number of images for each class.

        Returns:
            Positions in `rows`, ascending, int64 [classes * shots].
        """
        return np.flatnonzero(self._places[draw] < shots)

    def samples(self) -> Iterator[Sample]:
        """Yield the shots in the order of `rows`. Shards without a shot are not opened.

        Raises:
            SimgapError: A shot is no longer in the reference's shards.
        """
        table = self._table.take(pa.array(self.rows))
        wanted: dict[str, list[str]] = {}
        for shard, key in zip(table.column("shard").to_pylist(), table.column("key").to_pylist(), strict=True):
            wanted.setdefault(shard, []).append(key)
        shards = {shard.name: shard for shard in find_shards(self.reference)}
        for name, keys in wanted.items():
            wanted_keys = set(keys)
            samples = read_shard(shards[name], Accounting(), caption=False, label=True) if name in shards else ()
            found = {sample.key: sample for sample in samples if sample.key in wanted_keys}
            for key in keys:
                if key not in found:
                    raise SimgapError(
                        f"{self.reference / name}: sample {key!r} is no longer there; embed the reference again"
                    )
                yield found[key]
