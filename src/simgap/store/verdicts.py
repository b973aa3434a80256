"""What an interval shows, in words. Every table, page and command takes its verdicts from here."""

from __future__ import annotations

from collections.abc import Collection

from simgap.store.estimates import Estimate

# Whether the rule of a split used queries of a benchmark.
USED, HELD_OUT = "used by the rule", "held out"
# A difference of two accuracies.
OF_DIFFERENCES = LOWER, HIGHER, EQUIVALENT, INCONCLUSIVE = "lower", "higher", "equivalent", "inconclusive"
# Claim A: the share of a gap that pruning explains.
MORE_THAN_HALF, LESS_THAN_HALF, UNDEFINED = "more than half", "less than half", "undefined"
# Claim B: a small split against full, on all benchmarks.
MATCHES, DOES_NOT_MATCH = "matches", "does not match"

HALF = 0.5
# If the embedder finds fewer of the annotated copies, the number of copies is not known.
SMALLEST_RECALL = 0.5


def judge_effect(difference: Estimate) -> str:
    """Return whether a difference is `lower` or `higher` than zero, or `inconclusive`."""
    if difference.high < 0:
        return LOWER
    return HIGHER if difference.low > 0 else INCONCLUSIVE


def judge_difference(difference: Estimate, margin: float) -> str:
    """Return `equivalent` if the whole interval lies within the margin, else the verdict of `judge_effect`."""
    if -margin <= difference.low and difference.high <= margin:
        return EQUIVALENT
    return judge_effect(difference)


def judge_gap_explained(share: Estimate | None) -> str:
    """Return whether pruning explains `more than half` or `less than half` of a gap, or `inconclusive`.

    Args:
        share: The share of the gap, or None if there is no gap. The verdict is then `undefined`.
    """
    if share is None:
        return UNDEFINED
    if share.low > HALF:
        return MORE_THAN_HALF
    return LESS_THAN_HALF if share.high < HALF else INCONCLUSIVE


def judge_match(verdicts: Collection[str]) -> str:
    """Return whether a split `matches` full, from the verdicts of its differences to full on all benchmarks."""
    if set(verdicts) <= {EQUIVALENT, HIGHER}:
        return MATCHES
    return DOES_NOT_MATCH if LOWER in verdicts else INCONCLUSIVE


def can_count_copies(recall: float) -> bool:
    """Return whether the embedder finds enough of the annotated copies to say how many images leaked."""
    return recall >= SMALLEST_RECALL
