"""Write the comparison of two revisions as tables for a terminal and as CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simgap.core.files import atomic_output
from simgap.core.text import format_number, terminal_table
from simgap.store.tables import Row, write_table
from simgap.studies.overlap.claims import A, Answer, Claim
from simgap.studies.overlap.rows import Overlap


def _index(value: float | None) -> str:
    return "-" if value is None else format_number(value, "similarity")


def _answer(claim: str, answer: Answer) -> str:
    if answer.estimate is None:
        return answer.verdict
    form = "share" if claim == A else "points"
    value, low, high = (format_number(metric.value, form) for metric in answer.estimate.metrics)
    return f"{value} [{low}, {high}] {answer.verdict}"


def _overlap_table(overlaps: Sequence[Overlap], first: str, second: str) -> str:
    rows = [
        [
            overlap.split,
            overlap.rows,
            *(format_number(count, "count") for count in (overlap.first, overlap.second, overlap.both)),
            _index(overlap.jaccard),
            _index(overlap.by_chance),
        ]
        for overlap in overlaps
    ]
    return terminal_table(["split", "rows", first, second, "in both", "Jaccard", "by chance"], rows, left=2)


def _claim_table(claims: Sequence[Claim], first: str, second: str) -> str:
    rows = [
        [
            claim.split,
            claim.claim,
            claim.benchmark,
            _answer(claim.claim, claim.first),
            _answer(claim.claim, claim.second),
            "yes" if claim.agree else "no",
        ]
        for claim in claims
    ]
    return terminal_table(["split", "claim", "benchmark", first, second, "agree"], rows, left=3)


def text(overlaps: Sequence[Overlap], claims: Sequence[Claim], first: str, second: str) -> str:
    """Return the table of overlaps and the table of claims as text for a terminal.

    If there are no claims, the text contains only the table of overlaps.

    Args:
        overlaps: The overlaps of the splits.
        claims: The results for the claims.
        first: The name of the first revision.
        second: The name of the second revision.
    """
    lines = [_overlap_table(overlaps, first, second)]
    if claims:
        lines += [
            "",
            "A: share of the gap that pruning explains, in per cent. B: accuracy minus the accuracy of full, in points.",
            _claim_table(claims, first, second),
            "",
            f"The revisions agree on {sum(claim.agree for claim in claims)} of {len(claims)} claims.",
        ]
    return "\n".join(lines)


def _overlap_row(overlap: Overlap) -> Row:
    return {
        "split": overlap.split,
        "rows": overlap.rows,
        "first": overlap.first,
        "second": overlap.second,
        "both": overlap.both,
        "jaccard": overlap.jaccard,
        "jaccard_by_chance": overlap.by_chance,
    }


def _claim_row(claim: Claim) -> Row:
    row: Row = {"claim": claim.claim, "split": claim.split, "benchmark": claim.benchmark}
    for name, answer in (("first", claim.first), ("second", claim.second)):
        found = answer.estimate
        row[name] = None if found is None else found.value
        row[f"{name}_low"] = None if found is None else found.low
        row[f"{name}_high"] = None if found is None else found.high
        row[f"{name}_verdict"] = answer.verdict
    return row | {"agree": int(claim.agree)}


def write_tables(overlaps: Sequence[Overlap], claims: Sequence[Claim], out: Path) -> None:
    """Write overlap.csv and claims.csv into the folder `out`. A table without rows is skipped. An old folder is replaced."""
    tables = {
        "overlap": [_overlap_row(overlap) for overlap in overlaps],
        "claims": [_claim_row(claim) for claim in claims],
    }
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        for name, rows in tables.items():
            write_table(rows, partial / f"{name}.csv")
