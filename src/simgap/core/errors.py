"""The exception for mistakes that the user can correct."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LISTED = 10


class SimgapError(Exception):
    """A message of one line. It names the file or parameter, its value, and what would be right."""


def nearest_first(value: str, choices: Iterable[str]) -> str:
    """Join choices for an error message, those most like the value first.

    Returns:
        The first ten choices, and the number of the others.
    """

    def likeness(choice: str) -> float:
        return difflib.SequenceMatcher(None, value.casefold(), choice.casefold()).ratio()

    nearest = sorted(choices, key=likeness, reverse=True)
    more = len(nearest) - LISTED
    return ", ".join(nearest[:LISTED]) + (f" and {more} more" if more > 0 else "")
