"""Turn intervals into verdicts.

Every table, page and command uses these functions. They therefore never show different verdicts on one interval.
"""

from __future__ import annotations

from collections.abc import Collection

from simgap.store.estimates import Estimate

# These words say whether the rule of a split used queries of a benchmark. Metrics files and tables contain them.
USED, HELD_OUT = "used by the rule", "held out"
# These are the verdicts on a difference of two accuracies.
LOWER, HIGHER, EQUIVALENT, INCONCLUSIVE = "lower", "higher", "equivalent", "inconclusive"
# These are the verdicts on claim A, about the share of a gap that pruning explains.
MORE_THAN_HALF, LESS_THAN_HALF, UNDEFINED = "more than half", "less than half", "undefined"
# These are the verdicts on claim B, about a small split and full on all benchmarks.
MATCHES, DOES_NOT_MATCH = "matches", "does not match"

HALF = 0.5
# An embedder with a lower recall misses most of the annotated copies. The number of images with a copy is then unknown.
SMALLEST_RECALL = 0.5


def judge_effect(difference: Estimate) -> str:
    """Return `higher` if the whole interval is above zero, `lower` if it is below zero, else `inconclusive`."""
    if difference.high < 0:
        return LOWER
    return HIGHER if difference.low > 0 else INCONCLUSIVE


def judge_difference(difference: Estimate, margin: float) -> str:
    """Return `equivalent` if the whole interval lies in [-margin, margin], else the verdict of `judge_effect`."""
    if -margin <= difference.low and difference.high <= margin:
        return EQUIVALENT
    return judge_effect(difference)


def judge_gap_explained(share: Estimate | None) -> str:
    """Return the verdict on the share of a gap that pruning explains.

    Args:
        share: The share of the gap, or None if there may be no gap.

    Returns:
        `more than half` if the whole interval is above one half. `less than half` if the whole interval is below one half.
        `undefined` if `share` is None. Otherwise `inconclusive`.
    """
    if share is None:
        return UNDEFINED
    if share.low > HALF:
        return MORE_THAN_HALF
    return LESS_THAN_HALF if share.high < HALF else INCONCLUSIVE


def judge_match(verdicts: Collection[str]) -> str:
    """Return the verdict on whether a split matches full.

    Args:
        verdicts: The verdicts on the differences between the split and full, one for each benchmark.

    Returns:
        `matches` if every verdict is `equivalent` or `higher`. `does not match` if a verdict is `lower`. Otherwise
        `inconclusive`.
    """
    if set(verdicts) <= {EQUIVALENT, HIGHER}:
        return MATCHES
    return DOES_NOT_MATCH if LOWER in verdicts else INCONCLUSIVE


def can_count_copies(recall: float) -> bool:
    """Return whether the embedder finds at least half of the annotated copies.

    With a lower recall, the number of leaked images is unknown.
    """
    return recall >= SMALLEST_RECALL
