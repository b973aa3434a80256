"""Numbers of the page, each with the file and the key that it comes from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from simgap.core.files import read_json


def _signed(text: str) -> str:
    """Set a minus sign for the hyphen that Python writes."""
    return text.replace("-", "\N{MINUS SIGN}")


FORMATS: dict[str, Callable[[Any], str]] = {
    "percent": lambda value: _signed(f"{100 * value:.1f}"),
    "points": lambda value: _signed(f"{100 * value:+.1f}"),
    "share": lambda value: _signed(f"{100 * value:.0f}"),
    "count": lambda value: f"{value:,}",
    "similarity": lambda value: _signed(f"{value:.3f}"),
    "number": lambda value: _signed(f"{value:g}"),
}
NUMBER = Markup(
    '<data value="{value}" data-file="{file}" data-key="{key}" data-format="{format}" title="{file}: {key}">{text}</data>'
)


def cited(value: float, file: Path | str, key: str, form: str) -> Markup:
    """Write a number as HTML's `data` element: text for the reader, the exact value and where it stands.

    Args:
        key: in a metrics file the metric, elsewhere keys and positions joined by `/`.
        form: one of FORMATS.
    """
    return NUMBER.format(value=repr(value), file=str(file), key=key, format=form, text=FORMATS[form](value))


class Metrics:
    """The metrics files of a study, by `<stage>/<name>`.

    Raises:
        SimgapError: a file that is asked for is missing or is not JSON.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.read = cache(self._read)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _read(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = read_json(self._path(name))
        return content

    def number(self, name: str, key: str, form: str) -> Markup:
        """Write a metric."""
        return cited(self.read(name)[key], self._path(name), key, form)

    def interval(self, name: str, key: str, form: str) -> Markup:
        """Write a metric with its interval."""
        low, high = (self.number(name, f"{key}/{end}", form) for end in ("low", "high"))
        return Markup("{} [{}, {}]").format(self.number(name, key, form), low, high)
