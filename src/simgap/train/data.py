"""The samples of a split, streamed from the pool's own shards."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from simgap.data.images import BrokenImage, decode
from simgap.data.shards import Accounting, Sample, read_shard, shard_paths
from simgap.errors import SimgapError


@dataclass(frozen=True)
class TrainingShard:
    """A shard and which of its samples are trained on.

    Attributes:
        keys: kept keys.
        classnames: where given, the caption is "a photo of a {class}" of the sample's label.
    """

    path: Path
    keys: frozenset[str]
    classnames: tuple[str, ...] | None

    def samples(self) -> Iterator[Sample]:
        """Stream the kept samples; what cannot be read was counted when the set was embedded."""
        labelled = self.classnames is not None
        for sample in read_shard(self.path, Accounting(), caption=not labelled, label=labelled):
            if sample.key in self.keys:
                if self.classnames is not None and sample.label is not None:
                    sample = replace(sample, caption=f"a photo of a {self.classnames[sample.label]}")
                yield sample


def kept_shards(
    folder: Path, rows: pa.Table, keep: NDArray[np.bool_], classnames: tuple[str, ...] | None = None
) -> list[TrainingShard]:
    """Give a set's shards with the keys that are kept; shards without a kept row are left out.

    Args:
        rows: `shard` and `key` of every row of the set, in row order.
        keep: bool [rows].
        classnames: of a labelled set, for its captions.

    Raises:
        SimgapError: a kept row's shard is not in the folder.
    """
    kept = rows.filter(pa.array(keep))
    keys: dict[str, set[str]] = {}
    for shard, key in zip(kept.column("shard").to_pylist(), kept.column("key").to_pylist(), strict=True):
        keys.setdefault(shard, set()).add(key)
    paths = {path.name: path for path in shard_paths(folder)}
    for shard in keys:
        if shard not in paths:
            raise SimgapError(f"{folder / shard}: no such shard, though rows of the split lie in it")
    return [TrainingShard(paths[shard], frozenset(keys[shard]), classnames) for shard in sorted(keys)]


def readable_shards(folder: Path) -> list[TrainingShard]:
    """Give a set's shards with the keys of all samples whose image can be decoded."""
    return [TrainingShard(path, frozenset(_readable_keys(path)), None) for path in shard_paths(folder)]


def _readable_keys(path: Path) -> Iterator[str]:
    for sample in read_shard(path, Accounting(), caption=True, label=False):
        try:
            decode(sample.image)
        except BrokenImage:
            continue
        yield sample.key


class Samples(torch.utils.data.IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """An endless stream of (image [3, height, width], tokens [context length]), epoch after epoch.

    In an epoch every sample comes once, in an order that the seed and the epoch decide: shards are permuted, then a buffer
    of encoded samples is drawn from at random; a split that fits the buffer is read once and stays there. Augmentation is
    seeded by the seed and the position in the stream. Every worker reads the stream and decodes the batches that are its
    own, so the stream is the same for any number of workers, and one that starts at `done` batches goes on exactly where
    one that was cut off stood.
    """

    def __init__(
        self,
        shards: list[TrainingShard],
        preprocess: Any,
        tokenizer: Any,
        seed: int,
        buffer: int,
        batch: int,
        done: int,
    ) -> None:
        self.shards, self.preprocess, self.tokenizer = shards, preprocess, tokenizer
        self.seed, self.buffer, self.batch, self.done = seed, buffer, batch, done

    def _shuffled(self) -> Iterator[Sample]:
        for epoch in itertools.count():
            random = np.random.default_rng([self.seed, epoch])
            held: list[Sample] = []
            whole = True
            permuted = (self.shards[index] for index in random.permutation(len(self.shards)))
            for sample in itertools.chain.from_iterable(shard.samples() for shard in permuted):
                held.append(sample)
                if len(held) > self.buffer:
                    whole = False
                    chosen = int(random.integers(len(held)))
                    held[chosen], held[-1] = held[-1], held[chosen]
                    yield held.pop()
            if not held:
                raise SimgapError("training data: no sample could be read")
            for chosen in random.permutation(len(held)):
                yield held[chosen]
            while whole:
                for chosen in random.permutation(len(held)):
                    yield held[chosen]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        for position, sample in enumerate(self._shuffled()):
            # DataLoader takes batches from its workers in turn, the first of them first.
            ahead = position // self.batch - self.done
            if ahead >= 0 and ahead % workers == worker:
                # torch.manual_seed would visit every device; the transforms draw from this generator alone.
                torch.default_generator.manual_seed(seed_of(self.seed, position))
                yield self.preprocess(decode(sample.image)), self.tokenizer([sample.caption])[0]


def seed_of(seed: int, position: int) -> int:
    """Mix two numbers into one 63-bit seed; the generator that it seeds makes neighbours unrelated."""
    return (seed * 1_000_003 * 1_000_000_007 + position) % 2**63
