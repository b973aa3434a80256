"""Check the numbers that a plan reads from JSON files and options.

An error message names the file and the key, or the option, of the wrong number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simgap.core.errors import SimgapError
from simgap.core.files import read_json

# No study has as many samples or bytes as this number, so a larger number must be a mistake.
LARGEST = 10**15
SMALLEST = 1 / LARGEST


def check_range(name: str, value: float | None, least: float, most: float = LARGEST) -> None:
    """Check the value of an option.

    Args:
        name: Name of the option, for error messages.
        value: Value of the option. None if the option was not given, which passes the check.
        least: Smallest allowed value.
        most: Largest allowed value.

    Raises:
        SimgapError: The value is NaN or out of range.
    """
    if value is not None and not least <= value <= most:
        raise SimgapError(f"{name} is {value}; it must be between {least:g} and {most:g}")


class Numbers:
    """The numbers of a JSON file.

    Attributes:
        content: The parsed content of the file.
    """

    def __init__(self, path: Path, option: str = "") -> None:
        """Read a file.

        Args:
            path: The file.
            option: Name of the option that named the file, for error messages.

        Raises:
            SimgapError: The file does not exist or is not JSON.
        """
        self.content = read_json(path)
        self._where = f"{option}: {path}" if option else str(path)

    def fault(self, key: str, problem: str) -> SimgapError:
        """Return an error that names the file and a key.

        Args:
            key: The key.
            problem: What is wrong with the key, as words that follow the key.
        """
        return SimgapError(f"{self._where}: {key} {problem}")

    def value(self, *keys: str) -> Any:
        """Return the value at a path of nested keys.

        Raises:
            SimgapError: One of the keys is missing.
        """
        found = self.content
        for depth, key in enumerate(keys, 1):
            if not isinstance(found, dict) or key not in found:
                raise self.fault(".".join(keys[:depth]), "is missing; the file must have this key")
            found = found[key]
        return found

    def names(self, key: str) -> list[str]:
        """Return the keys of a mapping.

        Raises:
            SimgapError: The value is missing, is not a mapping or is an empty mapping.
        """
        found = self.value(key)
        if not isinstance(found, dict) or not found:
            raise self.fault(key, f"is {found!r}; it must be a mapping that is not empty")
        return list(found)

    def number(self, *keys: str, least: float = SMALLEST) -> float:
        """Return the number at a path of nested keys.

        Raises:
            SimgapError: The value is missing, is not a number or is not between `least` and `LARGEST`.
        """
        found = self.value(*keys)
        if type(found) not in (int, float) or not least <= found <= LARGEST:
            raise self.fault(".".join(keys), f"is {found!r}; it must be a number between {least:g} and {LARGEST:g}")
        return float(found)

    def count(self, key: str, least: int = 1) -> int:
        """Return the integer at a key.

        Raises:
            SimgapError: The value is missing, is not an integer or is not between `least` and `LARGEST`.
        """
        found = self.value(key)
        if type(found) is not int or not least <= found <= LARGEST:
            raise self.fault(key, f"is {found!r}; it must be an integer between {least} and {LARGEST:g}")
        return found
