"""Define the exception for mistakes that the user can correct, and format choices for its messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# An error message lists at most this many choices, so that it stays short.
LISTED = 10


class SimgapError(Exception):
    """A mistake that the user can correct.

    The message has one line. It names the file or parameter and the wrong value, and says what is required.
    """


def nearest_first(value: str, choices: Iterable[str]) -> str:
    """Join the choices for an error message, starting with the choice that is most like the value.

    Returns:
        One text with at most ten choices, separated by commas. If there are more choices, the text ends with the number of
        choices that are not listed.
    """

    def likeness(choice: str) -> float:
        return difflib.SequenceMatcher(None, value.casefold(), choice.casefold()).ratio()

    nearest = sorted(choices, key=likeness, reverse=True)
    more = len(nearest) - LISTED
    return ", ".join(nearest[:LISTED]) + (f" and {more} more" if more > 0 else "")
