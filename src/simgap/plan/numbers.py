"""Check the numbers that a plan reads from JSON files and options.

The error message for a wrong number names the option, or the file and the key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simgap.core.errors import SimgapError
from simgap.core.files import read_json

# A number above this limit must be a mistake, because no study has as many samples or bytes.
LARGEST = 10**15
SMALLEST = 1 / LARGEST


def check_range(name: str, value: float | None, least: float, most: float = LARGEST) -> None:
    """Check that the value of an option is in the allowed range.

    Args:
        name: Name of the option, for error messages.
        value: Value of the option. None if the user did not set the option. None passes the check.
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
        """Read and parse a JSON file.

        Args:
            path: The JSON file.
            option: Option with which the user chose the file, for error messages.

        Raises:
            SimgapError: The file does not exist or is not JSON.
        """
        self.content = read_json(path)
        self._where = f"{option}: {path}" if option else str(path)

    def fault(self, key: str, problem: str) -> SimgapError:
        """Return an error that names the file and a key.

        Args:
            key: Key of the wrong value.
            problem: Text that follows the key in the message and says what is wrong.
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
        """Return the keys of the mapping at a key of the file.

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
