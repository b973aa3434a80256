"""Numbers of JSON files that a plan reads: each is checked, and an error names the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simgap.core.errors import SimgapError
from simgap.core.files import read_json

# More of anything than a study has: what is larger is a slip or damage.
LARGEST = 10**15


class Numbers:
    """The numbers of a JSON file.

    Args:
        option: that named the file, for errors; empty where no option did.

    Raises:
        SimgapError: the file is missing or is not JSON.
    """

    def __init__(self, path: Path, option: str = "") -> None:
        self.path, self.content = path, read_json(path)
        self._where = f"{option}: {path}" if option else str(path)

    def fault(self, key: str, says: str) -> SimgapError:
        """Give the error of a key."""
        return SimgapError(f"{self._where}: {key}: {says}")

    def value(self, *keys: str | int) -> Any:
        """Give what stands under a key, or under a key of a key, and so on.

        Raises:
            SimgapError: nothing does.
        """
        found = self.content
        for depth, key in enumerate(keys):
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                raise self.fault(_joined(keys[: depth + 1]), "is missing") from None
        return found

    def number(self, *keys: str | int, zero: bool = False) -> float:
        """Give a number of seconds, rows or things a second: above 0, or 0 where it may be; see `LARGEST`.

        Raises:
            SimgapError: it is missing, no number or out of range.
        """
        found = self.value(*keys)
        # Exact for integers that no float holds, and false for NaN.
        least = 0.0 if zero else 1 / LARGEST
        if isinstance(found, bool) or not isinstance(found, int | float) or not least <= found <= LARGEST:
            said = "of 0 or more" if zero else "above 0"
            raise self.fault(_joined(keys), f"{found!r} should be a number {said}, {LARGEST:.0e} at most")
        return float(found)

    def count(self, *keys: str | int, least: int = 1) -> int:
        """Give a count of rows or samples.

        Raises:
            SimgapError: it is missing, no integer or out of range.
        """
        found = self.value(*keys)
        if type(found) is not int or not least <= found <= LARGEST:
            raise self.fault(_joined(keys), f"{found!r} should be an integer between {least} and {LARGEST:.0e}")
        return found


def _joined(keys: tuple[str | int, ...]) -> str:
    return ".".join(str(key) for key in keys)
