"""Progress bars of long work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(
    items: Iterable[Item] | None,
    total: int | None,
    description: str,
    unit: str,
    *,
    initial: int = 0,
    silent: bool = False,
) -> tqdm[Item]:
    """Return a progress bar that shows the rate and the time left. It is silent if the output is not a terminal.

    Args:
        items: What to iterate over; None if the caller calls `update`.
        total: Number of items.
        description: Text before the bar.
        unit: What an item is called.
        initial: Number of items that were done before.
        silent: Draw no bar on a terminal either.
    """
    bar: tqdm[Item] = tqdm(  # type: ignore[assignment]
        items,
        total=total,
        desc=description,
        unit=unit,
        initial=initial,
        disable=True if silent else None,
        dynamic_ncols=True,
    )
    return bar
