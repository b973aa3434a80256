"""The samples of a split, streamed from the pool's own shards."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image

from simgap.core.errors import SimgapError
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import (
    Accounting,
    Sample,
    Shard,
    ShardsByName,
    check_label,
    find_shards,
    read_shard,
    select_samples,
)
from simgap.train.step import Batch


@dataclass(frozen=True)
class TrainingShard:
    """A shard and which of its samples are trained on.

    Attributes:
        keys: kept keys, each once; as an Arrow array they take little more than their bytes.
        classnames: where given, the caption is "a photo of a {class}" of the sample's label.
    """

    shard: Shard
    keys: pa.StringArray
    classnames: tuple[str, ...] | None

    def samples(self) -> Iterator[Sample]:
        """Stream the kept samples.

        Raises:
            SimgapError: the shard does not give all of them, though it did when the set was embedded, or a label is outside
                the class names.
        """
        samples = read_shard(self.shard, Accounting(), caption=self.classnames is None, label=bool(self.classnames))
        for sample in select_samples(samples, self.keys.to_pylist(), self.shard):
            yield sample if self.classnames is None else replace(sample, caption=self._class_caption(sample))

    def _class_caption(self, sample: Sample) -> str:
        classnames = self.classnames or ()
        check_label(sample, len(classnames), self.shard)
        return f"a photo of a {classnames[sample.label or 0]}"


def kept_shards(
    folder: Path,
    rows: Iterable[tuple[int, pa.Table]],
    keep: NDArray[np.bool_],
    classnames: tuple[str, ...] | None = None,
) -> list[TrainingShard]:
    """Give a set's shards with the keys that are kept; shards without a kept row are left out.

    Memory is that of one table and of the kept keys' bytes.

    Args:
        rows: the first row, and `shard` and `key` of every row, of each part of the set.
        keep: bool [rows].
        classnames: of a labelled set, for its captions.

    Raises:
        SimgapError: a kept row's shard is not in the folder.
    """
    keys: dict[str, list[pa.StringArray]] = {}
    for start, table in rows:
        kept = table.filter(pa.array(keep[start : start + table.num_rows]))
        grouped = kept.group_by("shard", use_threads=False).aggregate([("key", "list")])
        for shard, of_shard in zip(grouped.column("shard").to_pylist(), grouped.column("key_list"), strict=True):
            keys.setdefault(shard, []).append(of_shard.values)
    shards = ShardsByName(folder)
    return [TrainingShard(shards[name], pa.concat_arrays(keys[name]), classnames) for name in sorted(keys)]


def readable_shards(folder: Path) -> list[TrainingShard]:
    """Give a set's shards with the keys of all samples whose image can be decoded; shards without one are left out."""
    shards = [TrainingShard(shard, pa.array(_readable_keys(shard), pa.string()), None) for shard in find_shards(folder)]
    return [shard for shard in shards if len(shard.keys)]


def _readable_keys(shard: Shard) -> Iterator[str]:
    for sample in read_shard(shard, Accounting(), caption=True, label=False):
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
        self.size = sum(len(shard.keys) for shard in shards)

    def stream(self, start: int) -> Iterator[Sample]:
        """Yield the samples from the place `start` on; of the epochs before that place's none is read."""
        if self.size <= self.buffer:
            return itertools.islice(self._held(), start, None)
        epoch, place = divmod(start, self.size)
        epochs = (self._epoch(number) for number in itertools.count(epoch))
        return itertools.islice(itertools.chain.from_iterable(epochs), place, None)

    def _samples(self, random: np.random.Generator) -> Iterator[Sample]:
        for index in random.permutation(len(self.shards)):
            yield from self.shards[index].samples()

    def _held(self) -> Iterator[Sample]:
        random = np.random.default_rng([self.seed, 0, self.number])
        held = list(self._samples(random))
        while True:
            for chosen in random.permutation(len(held)):
                yield held[chosen]

    def _epoch(self, epoch: int) -> Iterator[Sample]:
        random = np.random.default_rng([self.seed, epoch, self.number])
        held: list[Sample] = []
        for sample in self._samples(random):
            held.append(sample)
            if len(held) > self.buffer:
                chosen = int(random.integers(len(held)))
                held[chosen], held[-1] = held[-1], held[chosen]
                yield held.pop()
        for chosen in random.permutation(len(held)):
            yield held[chosen]


def balance_shards(shards: list[TrainingShard], readers: int) -> list[list[TrainingShard]]:
    """Deal shards to readers, no more than there are shards, so that each has about as many samples.

    The largest goes first, to the reader that has least, the lower one of equals (the LPT rule: the most that one has is less
    than 4/3 of the best there is; Graham 1969). A reader keeps the order of the shards.
    """
    balanced: list[list[int]] = [[] for _ in range(min(readers, len(shards)))]
    held = [0] * len(balanced)
    for index in sorted(range(len(shards)), key=lambda index: -len(shards[index].keys)):
        least = held.index(min(held))
        balanced[least].append(index)
        held[least] += len(shards[index].keys)
    return [[shards[index] for index in sorted(hand)] for hand in balanced]


class MicroBatches(torch.utils.data.IterableDataset[Batch | SimgapError]):
    """An endless stream of the (images, tokens) of micro-batches that a process trains on: [micro_batch, ...] each.

    The training's samples stand in one order, in blocks: block n is of reader n modulo the readers, among which the shards are
    dealt. A process takes its micro-batches out of that order, so that a global batch is the same for any number of processes
    and workers. With one reader every epoch has every sample once; with several that holds for each of them, and one with
    fewer samples begins its next epoch earlier. Augmentation is seeded by the seed and the place in the order.

    Workers take micro-batches in turn; where a block is a micro-batch and readers are a multiple of processes times workers,
    each reads shards of its own, else some are read by several, which take what is theirs.

    A SimgapError is yielded, not raised, and ends the stream: across a worker's process it would come with its traceback.

    Args:
        readers: streams of shards; no more than there are shards are used.
        micro_batch: samples of a micro-batch.
        block: samples that come from one reader together, a multiple of `micro_batch`.
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
        block: int,
        readers: int,
        rank: int,
        world_size: int,
        done: int,
    ) -> None:
        self.preprocess, self.tokenizer, self.seed = preprocess, tokenizer, seed
        self.micro_batch, self.block = micro_batch, block
        self.readers = [
            Reader(hand, number, seed, buffer) for number, hand in enumerate(balance_shards(shards, readers))
        ]
        self.rank, self.world_size, self.done = rank, world_size, done

    def __iter__(self) -> Iterator[Batch | SimgapError]:
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        try:
            yield from self._micro_batches(worker, workers)
        except SimgapError as error:
            yield error

    def _micro_batches(self, worker: int, workers: int) -> Iterator[Batch]:
        streams: dict[int, Iterator[Sample]] = {}
        places: dict[int, int] = {}
        for own in itertools.count(self.done + worker, workers):
            position = (own * self.world_size + self.rank) * self.micro_batch
            block, within = divmod(position, self.block)
            of_reader, reader = divmod(block, len(self.readers))
            place = of_reader * self.block + within
            if reader not in streams:
                streams[reader], places[reader] = self.readers[reader].stream(place), place
            # What came before is others'.
            ahead = place - places[reader]
            samples = list(itertools.islice(streams[reader], ahead, ahead + self.micro_batch))
            places[reader] = place + self.micro_batch
            yield self._prepared(samples, position)

    def _prepared(self, samples: list[Sample], position: int) -> Batch:
        images = []
        # The model's own random layers draw from the same generator where no worker stands between.
        with torch.random.fork_rng(devices=[]):
            for place, sample in enumerate(samples, position):
                # torch.manual_seed would visit every device; the transforms draw from this generator alone.
                torch.default_generator.manual_seed(seed_of(self.seed, place))
                images.append(self.preprocess(_picture(sample)))
        return torch.stack(images), self.tokenizer([sample.caption for sample in samples])


def _picture(sample: Sample) -> Image.Image:
    try:
        return decode(sample.image)
    except BrokenImage as reason:
        raise SimgapError(
            f"{sample.shard}: {sample.key}: {reason}; the shard changed since it was embedded, embed it anew"
        ) from None


def seed_of(seed: int, position: int) -> int:
    """Mix two numbers into one seed of 63 bits, of which torch's CPU generator uses the lower 32."""
    return (seed * 1_000_003 * 1_000_000_007 + position) % 2**63
