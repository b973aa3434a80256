"""Whether two revisions come to the same conclusion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simgap.report.sentences import MOST
from simgap.studies.revisions import COMPARE, Revision

A, B = "A", "B"


@dataclass(frozen=True)
class Answer:
    """A claim's figure with its interval, value, low and high, and what the interval says; None where it is undefined."""

    figure: tuple[float, float, float] | None
    verdict: str


@dataclass(frozen=True)
class Claim:
    """A claim on a benchmark, in two revisions.

    Attributes:
        claim: `A`, the share of the gap that pruning explains, or `B`, accuracy minus that of full.
        first, second: what they answer.
    """

    claim: str
    split: str
    benchmark: str
    first: Answer
    second: Answer

    @property
    def agree(self) -> bool:
        """Whether the intervals say the same."""
        return self.first.verdict == self.second.verdict


def _figure(compared: dict[str, Any], key: str) -> tuple[float, float, float] | None:
    return (compared[key], compared[f"{key}/low"], compared[f"{key}/high"]) if key in compared else None


def claim_a(compared: dict[str, Any], place: str) -> Answer:
    """Give the share of the gap that pruning explains, and whether that is more than half of it."""
    figure = _figure(compared, f"{place}/gap_explained")
    if figure is None:
        return Answer(None, "undefined")
    _, low, high = figure
    return Answer(figure, "more than half" if low > MOST else "less than half" if high < MOST else "inconclusive")


def claim_b(compared: dict[str, Any], place: str) -> Answer:
    """Give the difference to full, and the comparison's verdict on it."""
    figure = _figure(compared, f"{place}/minus_full")
    return Answer(figure, "undefined" if figure is None else compared[f"{place}/verdict_full"])


def compare_claims(first: Revision, second: Revision) -> Iterator[Claim]:
    """Set side by side what two revisions say of the splits and benchmarks that both have.

    Raises:
        SimgapError: a revision has no comparison.
    """
    params, others = first.params(), second.params()
    ours, theirs = first.read(COMPARE), second.read(COMPARE)
    kinds = (
        (A, claim_a, params.prune.imagenet_like),
        (B, claim_b, {**params.prune.dissimilar, **params.prune.similar}),
    )
    for claim, answer, splits in kinds:
        for split in splits:
            for benchmark in params.benchmarks.names:
                if split in params.runs and split in others.runs and benchmark in others.benchmarks.names:
                    place = f"{split}/{benchmark}"
                    yield Claim(claim, split, benchmark, answer(ours, place), answer(theirs, place))
