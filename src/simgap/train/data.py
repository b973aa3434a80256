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


class Reader:
    """The endless stream of one reader's shards, encoded, epoch after epoch.

    In an epoch every sample comes once, in an order that the seed, the epoch and the reader's number decide: shards are
    permuted, then a buffer of encoded samples is drawn from at random; what fits the buffer is read once and stays there.
    """

    def __init__(self, shards: list[TrainingShard], number: int, seed: int, buffer: int) -> None:
        self.shards, self.number, self.seed, self.buffer = shards, number, seed, buffer

    def __iter__(self) -> Iterator[Sample]:
        for epoch in itertools.count():
            random = np.random.default_rng([self.seed, epoch, self.number])
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


class MicroBatches(torch.utils.data.IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """An endless stream of the (images, tokens) of micro-batches that a process trains on: [micro_batch, ...] each.

    Micro-batches are numbered over all processes, and number n is of reader n modulo the readers, among which the shards
    are dealt. So a global batch is the same for any number of processes and workers. With one reader every epoch has every
    sample once; with several that holds for each of them, and one with fewer samples begins its next epoch earlier.
    Augmentation is seeded by the seed and the position. Workers take micro-batches in turn; where readers are a multiple of
    processes times workers, each reads shards of its own, else some are read by several, which take what is theirs.

    Args:
        readers: streams of shards; no more than there are shards are used.
        done: micro-batches of this process that were trained on already.
    """

    def __init__(
        self,
        shards: list[TrainingShard],
        preprocess: Any,
        tokenizer: Any,
        *,
        seed: int,
        buffer: int,
        micro_batch: int,
        readers: int,
        rank: int,
        world_size: int,
        done: int,
    ) -> None:
        self.preprocess, self.tokenizer, self.seed, self.micro_batch = preprocess, tokenizer, seed, micro_batch
        readers = min(readers, len(shards))
        self.readers = [Reader(shards[number::readers], number, seed, buffer) for number in range(readers)]
        self.rank, self.world_size, self.done = rank, world_size, done

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        streams = [iter(reader) for reader in self.readers]
        begun = [0] * len(streams)
        for own in itertools.count(self.done + worker, workers):
            number = own * self.world_size + self.rank
            of_reader, reader = divmod(number, len(streams))
            # What came before is others', or was trained on.
            ahead = (of_reader - begun[reader]) * self.micro_batch
            samples = list(itertools.islice(streams[reader], ahead, ahead + self.micro_batch))
            begun[reader] = of_reader + 1
            yield self._prepared(samples, number * self.micro_batch)

    def _prepared(self, samples: list[Sample], position: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = []
        for place, sample in enumerate(samples, position):
            # torch.manual_seed would visit every device; the transforms draw from this generator alone.
            torch.default_generator.manual_seed(seed_of(self.seed, place))
            images.append(self.preprocess(decode(sample.image)))
        return torch.stack(images), self.tokenizer([sample.caption for sample in samples])


def seed_of(seed: int, position: int) -> int:
    """Mix two numbers into one 63-bit seed; the generator that it seeds makes neighbours unrelated."""
    return (seed * 1_000_003 * 1_000_000_007 + position) % 2**63
