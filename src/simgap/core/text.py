"""Format numbers and tables as text. `format_number` rounds every number that a reader sees."""

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
    """Round a number by the rule of a format, and return it as text.

    The function first rounds a float to nine significant digits, because files keep nine. A number that is read from a file
    therefore gives the same text as the number before it was written.

    Args:
        value: The number.
        form: Name of the format, a key of `FORMATS`. `percent` is a percentage with one decimal. `points` is a difference of
            percentages with a sign and one decimal. `share` is a percentage without decimals.
    """
    return FORMATS[form](float(f"{value:.9g}") if isinstance(value, float) else value)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as a Markdown table."""
    return tabulate(rows, columns, tablefmt="pipe", disable_numparse=True)


def terminal_table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Return rows of text as a table for a terminal.

    Args:
        columns: Header of each column.
        rows: Text of each cell, row by row.
        left: The text of the first `left` columns is aligned to the left. The text of the other columns is aligned to the
            right.
    """
    alignment = ["left"] * left + ["right"] * (len(columns) - left)
    table = tabulate(
        rows, columns, tablefmt="plain", disable_numparse=True, colalign=alignment, preserve_whitespace=True
    )
    return "\n".join(line.rstrip() for line in table.splitlines())
