"""Numbers that a plan reads from JSON files and options. Each is checked, and an error names where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simgap.core.errors import SimgapError
from simgap.core.files import read_json

# No study has more than this of anything, so a larger number is a mistake.
LARGEST = 10**15
SMALLEST = 1 / LARGEST


def check_range(name: str, value: float | None, least: float, most: float = LARGEST) -> None:
    """Check the value of an option; None is an option that was not given.

    Raises:
        SimgapError: The value is NaN or out of range.
    """
    if value is not None and not least <= value <= most:
        raise SimgapError(f"{name} is {value}; it must be between {least:g} and {most:g}")


class Numbers:
    """The numbers of a JSON file.

    Attributes:
        content: What the file holds.
    """

    def __init__(self, path: Path, option: str = "") -> None:
        """Read a file.

        Args:
            path: The file.
            option: The option that named the file, for errors.

        Raises:
            SimgapError: The file does not exist or is not JSON.
        """
        self.content = read_json(path)
        self._where = f"{option}: {path}" if option else str(path)

    def fault(self, key: str, problem: str) -> SimgapError:
        """Return the error for a key."""
        return SimgapError(f"{self._where}: {key} {problem}")

    def value(self, *keys: str) -> Any:
        """Return the value at a path of keys.

        Raises:
            SimgapError: There is no such key.
        """
        found = self.content
        for depth, key in enumerate(keys, 1):
            if not isinstance(found, dict) or key not in found:
                raise self.fault(".".join(keys[:depth]), "is missing")
            found = found[key]
        return found

    def names(self, key: str) -> list[str]:
        """Return the keys of a mapping.

        Raises:
            SimgapError: The value is missing or is not a mapping, or the mapping is empty.
        """
        found = self.value(key)
        if not isinstance(found, dict) or not found:
            raise self.fault(key, f"is {found!r}; it must be a mapping that is not empty")
        return list(found)

    def number(self, *keys: str, least: float = SMALLEST) -> float:
        """Return a number between `least` and `LARGEST`.

        Raises:
            SimgapError: The number is missing, no number or out of range.
        """
        found = self.value(*keys)
        if type(found) not in (int, float) or not least <= found <= LARGEST:
            raise self.fault(".".join(keys), f"is {found!r}; it must be a number between {least:g} and {LARGEST:g}")
        return float(found)

    def count(self, key: str, least: int = 1) -> int:
        """Return an integer between `least` and `LARGEST`.

        Raises:
            SimgapError: The count is missing, no integer or out of range.
        """
        found = self.value(key)
        if type(found) is not int or not least <= found <= LARGEST:
            raise self.fault(key, f"is {found!r}; it must be an integer between {least} and {LARGEST:g}")
        return found
