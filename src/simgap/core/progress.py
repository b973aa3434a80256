"""Progress of long work: what, how far, rate and time left on a terminal; silent elsewhere."""

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
    """Wrap `items` in a progress bar; `update` and `set_postfix` work as tqdm's own.

    Args:
        initial: items that were done before.
        silent: draw no bar on a terminal either.
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
