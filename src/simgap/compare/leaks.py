"""What the images that have a copy in the pool add to an accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simgap.compare.bootstrap import RATE, Estimate, accuracy, estimate_where_defined, group_accuracies
from simgap.compare.resamples import Resamples
from simgap.compare.study import Study


@dataclass(frozen=True)
class Leaks:
    """One split on one benchmark, its copied images apart.

    Attributes:
        copied: images with a copy in the pool.
        of_copies, without_copies: top-1 accuracy on them and on the others; None where there is none.
        added_by_copies: accuracy on all images minus that on the others; None where no image is copied, or every one.
    """

    copied: int
    of_copies: Estimate | None
    without_copies: Estimate | None
    added_by_copies: Estimate | None


def leaks(study: Study, resamples: Resamples, benchmark: str) -> dict[str, Leaks]:
    """Set every split's accuracy on a benchmark beside that without the images that have a copy in the pool.

    Which images are copied is asked of the pool, not of the split: a split that kept none of the copies should show no
    difference that the images do not bring of themselves.
    """
    images, copied = resamples.images(benchmark), study.copied[benchmark]
    count, others = int(copied.sum()), int((~copied).sum())
    found = {}
    for split in study.splits:
        correct, seeds = study.correct[split, benchmark], resamples.seeds(split)
        apart = group_accuracies(correct, copied.astype(np.int64), 2, images, seeds)
        added = accuracy(correct, images, seeds) - apart[:, 0]
        found[split] = Leaks(
            count,
            estimate_where_defined(apart[:, 1], count, RATE) if count else None,
            estimate_where_defined(apart[:, 0], others, RATE) if others else None,
            estimate_where_defined(added, len(copied)) if count and others else None,
        )
    return found
