"""Split an iterable into batches, like `itertools.batched` of Python 3.12."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield the items in tuples of `size` items. The last tuple may be shorter."""
    iterator = iter(items)
    while group := tuple(islice(iterator, size)):
        yield group
