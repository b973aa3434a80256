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
    """Yield the items in order. The function takes `count` further items from `items` before it yields an item."""
    iterator = iter(items)
    held = deque(islice(iterator, count))
    while held:
        held.extend(islice(iterator, 1))
        yield held.popleft()


def decode_samples(
    samples: Iterable[Sample], preprocess: Callable[..., Any], decoders: int, ahead: int, accounting: Accounting
) -> Iterator[tuple[Sample, torch.Tensor]]:
    """Yield each sample with its preprocessed image, in the order of the samples.

    Samples whose images cannot be decoded are left out.

    Args:
        samples: Samples with encoded images.
        preprocess: Function that maps an RGB image to a tensor, float [3, height, width].
        decoders: Number of threads. The results do not depend on this number.
        ahead: Number of images that are decoded in advance and kept in memory. If this number is the batch size, the threads
            decode the next batch while the model works on the current batch.
        accounting: Counts of the samples. The function adds each sample that is left out to `accounting.dropped`.
    """

    def prepare(sample: Sample) -> torch.Tensor | str:
        try:
            return preprocess(decode(sample.image))  # type: ignore[no-any-return]
        except BrokenImage as reason:
            return str(reason)

    # This call keeps torch's number of threads for the model, which runs on this thread. Each decoder sets the number to 1,
    # so that decoding does not slow down the model. A thread copies the number when it first reads the number, so this thread
    # must read it before a decoder changes it.
    torch.get_num_threads()
    with ThreadPoolExecutor(decoders, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        submitted = ((sample, threads.submit(prepare, sample)) for sample in samples)
        for sample, future in prefetch(submitted, ahead):
            image = future.result()
            if isinstance(image, str):
                accounting.dropped[image] += 1
            else:
                yield sample, image
