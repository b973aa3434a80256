"""Two revisions side by side, for a terminal and as CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simgap.core.files import atomic_output
from simgap.store.tables import write_table
from simgap.studies.overlap.claims import A, Answer, Claim
from simgap.studies.overlap.rows import Overlap

Row = dict[str, str | int | float | None]


def _laid_out(rows: list[list[str]]) -> list[str]:
    """Lay out columns of text: the first one to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            field.rjust(width) if place else field.ljust(width)
            for place, (field, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _index(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _answer(claim: str, answer: Answer) -> str:
    if answer.figure is None:
        return answer.verdict
    sign = "" if claim == A else "+"
    value, low, high = (f"{100 * figure:{sign}.1f}" for figure in answer.figure)
    return f"{value} [{low}, {high}] {answer.verdict}"


def text(overlaps: Sequence[Overlap], claims: Sequence[Claim], first: str, second: str) -> str:
    """Lay out both tables for a terminal."""
    rows = [["split", "rows", first, second, "in both", "Jaccard", "by chance"]]
    rows += [
        [o.split, o.rows, str(o.first), str(o.second), str(o.both), _index(o.jaccard), _index(o.by_chance)]
        for o in overlaps
    ]
    lines = _laid_out(rows)
    if claims:
        rows = [["split", "claim", "benchmark", first, second, "agree"]]
        rows += [
            [
                c.split,
                c.claim,
                c.benchmark,
                *(_answer(c.claim, of) for of in (c.first, c.second)),
                "yes" if c.agree else "no",
            ]
            for c in claims
        ]
        lines += [
            "",
            "A: share of the gap that pruning explains, per cent; B: accuracy minus full's, points",
            *_laid_out(rows),
            "",
            f"{sum(claim.agree for claim in claims)} of {len(claims)} answers are the same",
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
        figures = answer.figure or (None, None, None)
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), figures, strict=True))
        row[f"{name}_verdict"] = answer.verdict
    return row | {"agree": int(claim.agree)}


def write_tables(overlaps: Sequence[Overlap], claims: Sequence[Claim], out: Path) -> None:
    """Write overlap.csv and, where there is a claim, claims.csv into a folder, which is made anew."""
    tables = {
        "overlap": [_overlap_row(overlap) for overlap in overlaps],
        "claims": [_claim_row(claim) for claim in claims],
    }
    with atomic_output(out) as partial:
        partial.mkdir(parents=True)
        for name, rows in tables.items():
            write_table(rows, partial / f"{name}.csv")
