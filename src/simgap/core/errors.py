"""The one exception for mistakes that the person at the keyboard can mend, and what its lines are made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SimgapError(Exception):
    """A one-line message that names the file or parameter, its value, and what would be right."""


LISTED = 10


def nearest_first(value: str, choices: Iterable[str]) -> str:
    """Join choices for an error's line, those that are most like the value first; of many, the first ten and the number."""

    def likeness(choice: str) -> float:
        return difflib.SequenceMatcher(None, value.casefold(), choice.casefold()).ratio()

    nearest = sorted(choices, key=likeness, reverse=True)
    more = len(nearest) - LISTED
    return ", ".join(nearest[:LISTED]) + (f" and {more} more" if more > 0 else "")
