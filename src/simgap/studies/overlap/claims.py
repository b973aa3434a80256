"""Whether two revisions come to the same conclusion."""

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
    """The answer to a claim: an estimate, or None if it is undefined, and its verdict."""

    estimate: Estimate | None
    verdict: str


@dataclass(frozen=True)
class Claim:
    """A claim about a benchmark, in two revisions.

    Attributes:
        claim: `A`, the share of the gap that pruning explains, or `B`, accuracy minus that of full.
        split: The pruned split.
        benchmark: The benchmark.
        first, second: The answers of the two revisions.
    """

    claim: str
    split: str
    benchmark: str
    first: Answer
    second: Answer

    @property
    def agree(self) -> bool:
        """Whether both answers have the same verdict."""
        return self.first.verdict == self.second.verdict


def claim_a(study: Study, split: str, benchmark: str) -> Answer:
    """Return the share of the gap that pruning explains, and whether it is more than half."""
    share = study.gap_explained(split, benchmark)
    return Answer(share, judge_gap_explained(share))


def claim_b(study: Study, split: str, benchmark: str) -> Answer:
    """Return the difference to full, and the verdict of the comparison."""
    difference = study.minus_full(split, benchmark)
    return Answer(difference, UNDEFINED if difference is None else str(study.verdict_full(split, benchmark)))


def compare_claims(first: Revision, second: Revision) -> Iterator[Claim]:
    """Yield the answers of two revisions for every split and benchmark that both have.

    Raises:
        SimgapError: A revision has no comparison.
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
