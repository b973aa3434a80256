"""Stream the training samples of a split from the pool's own shards."""

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
    """A shard and the samples of it to train on.

    Attributes:
        shard: The shard.
        keys: The keys of these samples, each once. An Arrow array needs little more memory than the bytes of the keys.
        classnames: Class names, or None. If given, the caption of a sample is "a photo of a {class}", by its label.
    """

    shard: Shard
    keys: pa.StringArray
    classnames: tuple[str, ...] | None

    def samples(self) -> Iterator[Sample]:
        """Yield the samples, in the order of the shard.

        Raises:
            SimgapError: The shard no longer contains all samples that it had when the set was embedded, or a label is outside
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
    """Return the shards of a set that contain kept rows, with the keys of these rows.

    Memory is that of one table and of the bytes of the kept keys.

    Args:
        folder: Folder of the shards.
        rows: For each part of the set, the number of its first row and a table of `shard` and `key`.
        keep: Whether a row is kept, bool [rows].
        classnames: Class names that make the captions of a labelled set.

    Raises:
        SimgapError: The shard of a kept row is not in the folder.
    """
    keys: dict[str, list[pa.StringArray]] = {}
    for start, table in rows:
        kept = table.filter(pa.array(keep[start : start + table.num_rows]))
        grouped = kept.group_by("shard", use_threads=False).aggregate([("key", "list")])
        for shard, shard_keys in zip(grouped.column("shard").to_pylist(), grouped.column("key_list"), strict=True):
            keys.setdefault(shard, []).append(shard_keys.values)
    shards = ShardsByName(folder)
    return [TrainingShard(shards[name], pa.concat_arrays(keys[name]), classnames) for name in sorted(keys)]


def readable_shards(folder: Path) -> list[TrainingShard]:
    """Return the shards of a folder with the keys of all samples whose image can be decoded.

    A shard without such a sample is not returned.
    """
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
    """An endless stream of encoded samples, epoch after epoch.

    Every epoch contains each sample once. The seed, the epoch and the reader's number determine the order: shards are permuted,
    and samples are drawn at random from a shuffle buffer. If all samples fit into the buffer, they are read only once.
    """

    def __init__(self, shards: list[TrainingShard], number: int, seed: int, buffer: int) -> None:
        """Create the stream of one reader.

        Args:
            shards: The shards of this reader.
            number: Number of the reader.
            seed: Seed of the order.
            buffer: Number of samples in the shuffle buffer.
        """
        self.shards, self.number, self.seed, self.buffer = shards, number, seed, buffer
        self.size = sum(len(shard.keys) for shard in shards)

    def stream(self, start: int) -> Iterator[Sample]:
        """Return the samples from position `start` on, without reading the epochs before that position."""
        if self.size <= self.buffer:
            return itertools.islice(self._from_memory(), start, None)
        epoch, place = divmod(start, self.size)
        epochs = (self._epoch(number) for number in itertools.count(epoch))
        return itertools.islice(itertools.chain.from_iterable(epochs), place, None)

    def _samples(self, random: np.random.Generator) -> Iterator[Sample]:
        for index in random.permutation(len(self.shards)):
            yield from self.shards[index].samples()

    def _from_memory(self) -> Iterator[Sample]:
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
    """Distribute shards over readers, so that all readers have about the same number of samples.

    Shards are assigned from the largest to the smallest, each to the reader with the fewest samples so far. Of equal readers
    the lower one is chosen. By this LPT rule the largest load is less than 4/3 of the optimum (Graham 1969).

    Args:
        shards: The shards.
        readers: Number of readers; at most one reader for each shard is used.

    Returns:
        The shards of each reader, in their given order.
    """
    balanced: list[list[int]] = [[] for _ in range(min(readers, len(shards)))]
    held = [0] * len(balanced)
    for index in sorted(range(len(shards)), key=lambda index: -len(shards[index].keys)):
        least = held.index(min(held))
        balanced[least].append(index)
        held[least] += len(shards[index].keys)
    return [[shards[index] for index in sorted(indices)] for indices in balanced]


class MicroBatches(torch.utils.data.IterableDataset[Batch | SimgapError]):
    """An endless stream of the micro-batches of one process, as images and tokens [micro_batch, ...].

    The samples of a training have one global order. It consists of blocks: block n comes from reader n modulo the number of
    readers, and each reader has shards of its own. A process takes its micro-batches out of this order, so a global batch is
    the same for any number of processes and workers. With one reader, every epoch contains each sample once. With several
    readers this holds for each reader, and a reader with fewer samples starts its next epoch earlier. The seed and the position
    in the order determine the augmentation.

    The workers of a process take micro-batches in turn. If a block is one micro-batch and the number of readers is a multiple
    of processes times workers, each worker reads its own shards. Otherwise several workers read the same shards, and each
    skips the samples of the others.

    A SimgapError is yielded instead of raised, and ends the stream, because a DataLoader would add the worker's traceback to
    the message.
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
        """Create the stream of one process.

        Args:
            shards: The shards of the training.
            preprocess: Function from a PIL image to a tensor, with augmentation.
            tokenizer: Function from a list of texts to a tensor of tokens.
            seed: Seed of the order and of the augmentation.
            buffer: Number of samples in the shuffle buffer of each reader.
            micro_batch: Number of samples of a micro-batch.
            block: Number of consecutive samples from one reader, a multiple of `micro_batch`.
            readers: Number of readers; at most one reader for each shard is used.
            rank: Number of this process.
            world_size: Number of processes.
            done: Number of micro-batches that this process has already trained on.
        """
        self.preprocess, self.tokenizer, self.seed = preprocess, tokenizer, seed
        self.micro_batch, self.block = micro_batch, block
        self.readers = [
            Reader(reader_shards, number, seed, buffer)
            for number, reader_shards in enumerate(balance_shards(shards, readers))
        ]
        self.rank, self.world_size, self.done = rank, world_size, done

    def __iter__(self) -> Iterator[Batch | SimgapError]:
        """Yield the micro-batches of this worker."""
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
            blocks_before, reader = divmod(block, len(self.readers))
            place = blocks_before * self.block + within
            if reader not in streams:
                streams[reader], places[reader] = self.readers[reader].stream(place), place
            # The samples in between belong to other processes and workers.
            ahead = place - places[reader]
            samples = list(itertools.islice(streams[reader], ahead, ahead + self.micro_batch))
            places[reader] = place + self.micro_batch
            yield self._prepared(samples, position)

    def _prepared(self, samples: list[Sample], position: int) -> Batch:
        images = []
        # Without workers, random layers of the model use the same generator, so its state is restored afterwards.
        with torch.random.fork_rng(devices=[]):
            for place, sample in enumerate(samples, position):
                # The transforms only use this generator. torch.manual_seed would also seed every device.
                torch.default_generator.manual_seed(mix_seed(self.seed, place))
                images.append(self.preprocess(_decode(sample)))
        return torch.stack(images), self.tokenizer([sample.caption for sample in samples])


def _decode(sample: Sample) -> Image.Image:
    try:
        return decode(sample.image)
    except BrokenImage as reason:
        raise SimgapError(
            f"{sample.shard}: sample {sample.key}: {reason}; the shard changed since it was embedded, embed it again"
        ) from None


def mix_seed(seed: int, position: int) -> int:
    """Combine a seed and a position into one seed of 63 bits; torch's CPU generator uses the lower 32 bits."""
    return (seed * 1_000_003 * 1_000_000_007 + position) % 2**63
