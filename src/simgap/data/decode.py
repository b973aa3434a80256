"""Encoded samples to what a model takes, by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from simgap.clip.model import Model
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import Accounting, Sample

Item = TypeVar("Item")


def look_ahead(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Yield the items in their order; `count` more are taken from the iterable before one is yielded."""
    iterator = iter(items)
    held = deque(islice(iterator, count))
    while held:
        held.extend(islice(iterator, 1))
        yield held.popleft()


def decoded(
    samples: Iterable[Sample], model: Model, decoders: int, ahead: int, accounting: Accounting
) -> Iterator[tuple[Sample, torch.Tensor]]:
    """Yield each sample with its preprocessed image, float [3, height, width], in their order.

    Images that cannot be decoded are counted in `accounting` and left out. Results do not depend on `decoders`, the threads.
    At most `ahead` images are decoded before they are asked for and held: with a batch's number of them, a batch is decoded
    while the one before it is in the model.
    """

    def prepare(sample: Sample) -> torch.Tensor | str:
        try:
            return model.preprocess(decode(sample.image))  # type: ignore[no-any-return]
        except BrokenImage as reason:
            return str(reason)

    # A decoder whose arithmetic spread over the cores would hold up the model's. A thread takes torch's number when it first
    # asks for it: this one has to ask before decoders set theirs.
    torch.get_num_threads()
    with ThreadPoolExecutor(decoders, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        begun = ((sample, threads.submit(prepare, sample)) for sample in samples)
        for sample, preparing in look_ahead(begun, ahead):
            image = preparing.result()
            if isinstance(image, str):
                accounting.dropped[image] += 1
            else:
                yield sample, image
