"""Encoded samples to what a model takes, by threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from simgap.batches import batched
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import Accounting, Sample
from simgap.embed.model import Model

# Samples whose images are held decoded, besides those of the batch that is being filled.
AHEAD = 256


def decoded(
    samples: Iterable[Sample], model: Model, decoders: int, accounting: Accounting
) -> Iterator[tuple[Sample, torch.Tensor]]:
    """Yield each sample with its preprocessed image, float [3, height, width], in their order.

    Images that cannot be decoded are counted in `accounting` and left out. Results do not depend on `decoders`, the threads.
    """

    def prepare(sample: Sample) -> torch.Tensor | str:
        try:
            return model.preprocess(decode(sample.image))  # type: ignore[no-any-return]
        except BrokenImage as reason:
            return str(reason)

    with ThreadPoolExecutor(decoders) as threads:
        for group in batched(samples, AHEAD):
            for sample, image in zip(group, threads.map(prepare, group), strict=True):
                if isinstance(image, str):
                    accounting.dropped[image] += 1
                else:
                    yield sample, image
