"""Decode and preprocess the images of samples in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch

from simgap.data.images import BrokenImage, decode
from simgap.data.shards import Accounting, Sample

Item = TypeVar("Item")


def prefetch(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Yield the items in order. Before each one is yielded, the next `count` items are taken from the iterable."""
    iterator = iter(items)
    held = deque(islice(iterator, count))
    while held:
        held.extend(islice(iterator, 1))
        yield held.popleft()


def decode_samples(
    samples: Iterable[Sample], preprocess: Callable[..., Any], decoders: int, ahead: int, accounting: Accounting
) -> Iterator[tuple[Sample, torch.Tensor]]:
    """Yield each sample with its preprocessed image, in the order of the samples.

    Args:
        samples: samples with encoded images.
        preprocess: maps an RGB image to a tensor, float [3, height, width].
        decoders: number of threads. Results do not depend on it.
        ahead: how many images are decoded in advance and kept in memory. With the size of a batch, the next batch is
            decoded while the model works on the current one.
        accounting: images that cannot be decoded are left out and counted here.
    """

    def prepare(sample: Sample) -> torch.Tensor | str:
        try:
            return preprocess(decode(sample.image))  # type: ignore[no-any-return]
        except BrokenImage as reason:
            return str(reason)

    # Each decoder uses one thread, so that decoding does not slow down the model. A thread takes torch's number of threads
    # when it first asks for it, so this thread has to ask before a decoder sets the number to 1.
    torch.get_num_threads()
    with ThreadPoolExecutor(decoders, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        submitted = ((sample, threads.submit(prepare, sample)) for sample in samples)
        for sample, future in prefetch(submitted, ahead):
            image = future.result()
            if isinstance(image, str):
                accounting.dropped[image] += 1
            else:
                yield sample, image
