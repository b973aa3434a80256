"""Progress of long work: what, how far, rate and time left on a terminal; silent elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item] | None, total: int | None, description: str, unit: str) -> tqdm[Item]:
    """Wrap `items` in a progress bar; `update` and `set_postfix` work as tqdm's own."""
    bar: tqdm[Item] = tqdm(items, total=total, desc=description, unit=unit, disable=None, dynamic_ncols=True)  # type: ignore[assignment]
    return bar
