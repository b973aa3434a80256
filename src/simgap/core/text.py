"""Numbers and tables as text. Every number that a reader sees is rounded by `format_number`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tabulate import tabulate

FORMATS: dict[str, Callable[[Any], str]] = {
    "percent": lambda value: f"{100 * value:.1f}",
    "points": lambda value: f"{100 * value:+.1f}",
    "share": lambda value: f"{100 * value:.0f}",
    "count": lambda value: f"{value:,}",
    "similarity": lambda value: f"{value:.3f}",
    "similarity difference": lambda value: f"{value:+.3f}",
    "slope": lambda value: f"{value:+.2f}",
    "number": lambda value: f"{value:g}",
}


def format_number(value: float, form: str) -> str:
    """Return a number as text, rounded as its format says.

    A float is first rounded to the nine significant digits that files keep, so that it looks the same before and after it is
    written.

    Args:
        value: the number.
        form: a key of `FORMATS`. `percent` and `points` (a signed difference) have one decimal, `share` is a whole
            percentage.
    """
    return FORMATS[form](float(f"{value:.9g}") if isinstance(value, float) else value)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as a Markdown table."""
    return tabulate(rows, columns, tablefmt="pipe", disable_numparse=True)


def terminal_table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Return rows of text as a table for a terminal.

    Args:
        columns: the header.
        rows: the cells.
        left: how many of the first columns are aligned to the left. The others are aligned to the right.
    """
    alignment = ["left"] * left + ["right"] * (len(columns) - left)
    table = tabulate(
        rows, columns, tablefmt="plain", disable_numparse=True, colalign=alignment, preserve_whitespace=True
    )
    return "\n".join(line.rstrip() for line in table.splitlines())
