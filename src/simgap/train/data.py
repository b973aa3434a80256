"""Read the training samples of a split directly from the shards of the pool."""

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
    """A shard, and the keys of the samples that a model trains on.

    Attributes:
        shard: The shard.
        keys: The keys of the samples to train on, without repeats. The keys are in an Arrow array, because such an array needs
            little more memory than the bytes of the keys.
        classnames: Class names, or None if the shard contains captions. With class names, the caption of a sample is "a photo
            of a {class}". The label of the sample determines the class.
    """

    shard: Shard
    keys: pa.StringArray
    classnames: tuple[str, ...] | None

    def samples(self) -> Iterator[Sample]:
        """Yield the samples to train on, in the order of the shard.

        Raises:
            SimgapError: The shard no longer contains all samples to train on, or a label is outside the class names.
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
    """Return the shards that contain kept rows of a set, with the keys of the kept rows.

    The function needs memory for the table of one part and for the bytes of the kept keys.

    Args:
        folder: Folder of the shards.
        rows: One tuple for each part of the set. It contains the number of the part's first row, and a table with the columns
            `shard` and `key`.
        keep: Whether each row is kept, bool [rows].
        classnames: Class names of a labelled set, or None if the samples have captions. If there are class names, captions are
            made from them.

    Returns:
        One entry for each shard with kept rows, ordered by the name of the shard. Other shards are left out.

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
    """Return the shards of a folder, each with the keys of all samples whose image can be decoded.

    Shards without any such sample are left out.
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
    """An endless stream of samples with encoded images, epoch after epoch.

    Every epoch contains each sample once. The reader permutes the shards and takes samples at random from a shuffle buffer. The
    seed, the epoch and the number of the reader determine this order. If all samples fit into the buffer, the reader reads the
    shards only once.
    """

    def __init__(self, shards: list[TrainingShard], number: int, seed: int, buffer: int) -> None:
        """Create the stream of one reader.

        Args:
            shards: The shards of this reader.
            number: Number of the reader. Readers with different numbers have different orders.
            seed: Seed of the order.
            buffer: Number of samples in the shuffle buffer.
        """
        self.shards, self.number, self.seed, self.buffer = shards, number, seed, buffer
        self.size = sum(len(shard.keys) for shard in shards)

    def stream(self, start: int) -> Iterator[Sample]:
        """Return an iterator over the samples from position `start` on. Whole epochs before this position are not read."""
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

    The function assigns shards from the largest to the smallest, each to the reader with the fewest samples so far. If several
    readers have the fewest samples, the one with the smallest number gets the shard. This method is the LPT rule (longest
    processing time first). With this rule, the largest load is less than 4/3 of the optimum (Graham 1969).

    Args:
        shards: The shards.
        readers: Number of readers. If there are fewer shards than readers, each shard has its own reader.

    Returns:
        One list for each reader. The list contains the shards of the reader, in the order of `shards`.
    """
    balanced: list[list[int]] = [[] for _ in range(min(readers, len(shards)))]
    held = [0] * len(balanced)
    for index in sorted(range(len(shards)), key=lambda index: -len(shards[index].keys)):
        least = held.index(min(held))
        balanced[least].append(index)
        held[least] += len(shards[index].keys)
    return [[shards[index] for index in sorted(indices)] for indices in balanced]


class MicroBatches(torch.utils.data.IterableDataset[Batch | SimgapError]):
    """An endless stream of the micro-batches of one process.

    A micro-batch is a tuple of images and tokens, each [micro_batch, ...].

    The samples of a training run have one global order, which consists of blocks. Each reader has its own shards, and the
    readers fill the blocks in turn. The reader of block n is the reader with the number n modulo the number of readers. Each
    process takes micro-batches from the global order. A global batch is therefore the same for any number of processes and
    workers. The seed and the position of a sample in the global order determine the augmentation of the sample.

    With one reader, every epoch contains each sample once. With several readers, each reader has its own epochs. An epoch of a
    reader contains each sample of the reader once. A reader with fewer samples therefore starts a new epoch earlier than the
    other readers.

    The workers of a process take micro-batches in turn. Each worker reads only its own shards if two conditions are met. A
    block is one micro-batch, and the number of readers is a multiple of (processes * workers). Otherwise several workers read
    the same shards, and each worker skips the samples of the other workers.

    If reading fails, the stream does not raise the SimgapError, but yields the error as its last item. If the stream raised the
    error, a DataLoader would add the traceback of the worker to the message.
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
            shards: The shards to train on.
            preprocess: Function from a PIL image to a tensor, with augmentation.
            tokenizer: Function from a list of texts to a tensor of tokens.
            seed: Seed of the order and of the augmentation.
            buffer: Number of samples in the shuffle buffer of each reader.
            micro_batch: Number of samples of a micro-batch.
            block: Number of consecutive samples from one reader, a multiple of `micro_batch`.
            readers: Number of readers. If there are fewer shards than readers, each shard has its own reader.
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
        """Yield the micro-batches of this worker, and a SimgapError as the last item if reading fails."""
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
            # Other processes and workers use the samples before this place, so this worker skips these samples.
            ahead = place - places[reader]
            samples = list(itertools.islice(streams[reader], ahead, ahead + self.micro_batch))
            places[reader] = place + self.micro_batch
            yield self._prepared(samples, position)

    def _prepared(self, samples: list[Sample], position: int) -> Batch:
        images = []
        # Without workers, random layers of the model use the random generator that augmentation uses. Augmentation must
        # therefore restore the state of the generator.
        with torch.random.fork_rng(devices=[]):
            for place, sample in enumerate(samples, position):
                # Only the CPU's default generator is seeded, because the transforms use no other generator. torch.manual_seed
                # would also seed every GPU.
                torch.default_generator.manual_seed(mix_seed(self.seed, place))
                images.append(self.preprocess(_decode(sample)))
        return torch.stack(images), self.tokenizer([sample.caption for sample in samples])


def _decode(sample: Sample) -> Image.Image:
    try:
        return decode(sample.image)
    except BrokenImage as reason:
        raise SimgapError(
            f"{sample.shard}: sample {sample.key}: {reason}; the shard changed after it was embedded, so embed it again"
        ) from None


def mix_seed(seed: int, position: int) -> int:
    """Combine a seed and the position of a sample into a seed below 2**63.

    torch's CPU generator uses only the lowest 32 bits of this seed.
    """
    return (seed * 1_000_003 * 1_000_000_007 + position) % 2**63
