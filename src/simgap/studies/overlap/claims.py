"""Check whether two revisions reach the same verdict on each claim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simgap.store.estimates import Estimate
from simgap.store.study import Study
from simgap.store.verdicts import UNDEFINED, judge_gap_explained
from simgap.studies.revisions import Revision

A, B = "A", "B"


@dataclass(frozen=True)
class Answer:
    """The result of one revision for a claim.

    Attributes:
        estimate: The estimate that the claim is about. None if it is undefined.
        verdict: The verdict on the estimate.
    """

    estimate: Estimate | None
    verdict: str


@dataclass(frozen=True)
class Claim:
    """The results of two revisions for one claim, one split and one benchmark.

    Attributes:
        claim: `A` or `B`. Claim A is about the share of the gap that pruning explains. Claim B is about the accuracy of the
            split minus the accuracy of full.
        split: The name of the pruned split.
        benchmark: The name of the benchmark.
        first, second: The results of the first and the second revision.
    """

    claim: str
    split: str
    benchmark: str
    first: Answer
    second: Answer

    @property
    def agree(self) -> bool:
        """Whether both revisions have the same verdict."""
        return self.first.verdict == self.second.verdict


def claim_a(study: Study, split: str, benchmark: str) -> Answer:
    """Return the share of the gap that pruning explains, and the verdict on whether the share is more than half."""
    share = study.gap_explained(split, benchmark)
    return Answer(share, judge_gap_explained(share))


def claim_b(study: Study, split: str, benchmark: str) -> Answer:
    """Return the accuracy of a split minus the accuracy of full, and the verdict that the comparison stored."""
    difference = study.minus_full(split, benchmark)
    return Answer(difference, UNDEFINED if difference is None else str(study.verdict_full(split, benchmark)))


def compare_claims(first: Revision, second: Revision) -> Iterator[Claim]:
    """Yield the claims about every split and benchmark that both revisions have.

    Claim A is about imagenet-like splits. Claim B is about dissimilar and similar splits. The params file of the first revision
    defines the rule of each split.

    Raises:
        SimgapError: A revision has no metrics of the comparison.
    """
    ours, theirs = first.study(), second.study()
    prune = first.params().prune
    kinds = ((A, claim_a, prune.imagenet_like), (B, claim_b, {**prune.dissimilar, **prune.similar}))
    for claim, answer, splits in kinds:
        for split in splits:
            for benchmark in ours.benchmarks:
                if split in ours.splits and split in theirs.splits and benchmark in theirs.benchmarks:
                    answers = (answer(study, split, benchmark) for study in (ours, theirs))
                    yield Claim(claim, split, benchmark, *answers)
