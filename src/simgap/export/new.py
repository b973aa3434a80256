"""Where an export is written: a path at which nothing stands yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output


def check_new(out: Path) -> None:
    """Refuse a path at which something stands.

    Raises:
        SimgapError: it does.
    """
    if out.exists():
        raise SimgapError(f"{out}: exists; name one that does not exist yet")


@contextmanager
def new_output(out: Path) -> Iterator[Path]:
    """Do as `complete`, but let what came to stand at `out` meanwhile stay: an export may take days.

    Raises:
        SimgapError: something stands there when the block ends.
    """
    with atomic_output(out) as partial:
        yield partial
        check_new(out)
