"""Write outputs to paths that do not exist yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output


def check_new(out: Path) -> None:
    """Check that `out` does not exist.

    Raises:
        SimgapError: `out` exists.
    """
    if out.exists():
        raise SimgapError(f"{out}: exists; name one that does not exist yet")


@contextmanager
def new_output(out: Path) -> Iterator[Path]:
    """Write an output like `atomic_output`, but never overwrite one that another process created meanwhile.

    An export may take days, so the check at its start is not enough.

    Raises:
        SimgapError: `out` exists when the block ends.
    """
    with atomic_output(out) as partial:
        yield partial
        check_new(out)
