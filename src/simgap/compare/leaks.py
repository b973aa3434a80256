"""Measure how much the copied images add to an accuracy. A copied image is a benchmark image with a copy in the pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simgap.compare.bootstrap import RATE, accuracy, estimate_if_defined, group_accuracies
from simgap.compare.outcomes import Outcomes
from simgap.compare.resamples import Resamples
from simgap.store.estimates import Estimate


@dataclass(frozen=True)
class Leaks:
    """The accuracy of a split on a benchmark, with and without the copied images.

    Attributes:
        copied: The number of images with a copy in the pool.
        of_copies: The top-1 accuracy on the copied images. None if no image is copied.
        without_copies: The top-1 accuracy on the other images. None if every image is copied.
        added_by_copies: The accuracy on all images minus the accuracy on the other images. None if no image or every image is
            copied.
    """

    copied: int
    of_copies: Estimate | None
    without_copies: Estimate | None
    added_by_copies: Estimate | None


def leaks(outcomes: Outcomes, resamples: Resamples, benchmark: str) -> dict[str, Leaks]:
    """Compare the accuracy of every split on all images of a benchmark with the accuracy on the images without a copy.

    An image counts as copied if the pool has a copy of it, even if the split does not keep the copy. A split without the copies
    serves as a baseline: it shows only whether the copied images are easier or harder than the others.

    Returns:
        The accuracies by split name.
    """
    images, copied = resamples.images(benchmark), outcomes.copied[benchmark]
    count, others = int(copied.sum()), int((~copied).sum())
    found = {}
    for split in outcomes.splits:
        correct, seeds = outcomes.correct[split, benchmark], resamples.seeds(split)
        apart = group_accuracies(correct, copied.astype(np.int64), 2, images, seeds)
        added = accuracy(correct, images, seeds) - apart[:, 0]
        found[split] = Leaks(
            count,
            estimate_if_defined(apart[:, 1], count, RATE) if count else None,
            estimate_if_defined(apart[:, 0], others, RATE) if others else None,
            estimate_if_defined(added, len(copied)) if count and others else None,
        )
    return found
