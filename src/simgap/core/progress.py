"""Show progress bars for long work."""

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
    """Return a progress bar that shows the rate and the remaining time.

    If the output is not a terminal, the bar prints nothing.

    Args:
        items: The items that the bar yields. None means that the caller counts the items by calling `update`.
        total: Number of items.
        description: Text before the bar.
        unit: Word for one item, for example `sample`.
        initial: Number of items that an earlier run finished.
        silent: If true, the bar prints nothing, even on a terminal.
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
