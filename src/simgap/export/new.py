"""Write outputs without overwriting existing files or folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output


def check_new(out: Path) -> None:
    """Check that `out` does not exist.

    Raises:
        SimgapError: The path exists.
    """
    if out.exists():
        raise SimgapError(f"{out}: exists; choose a path that does not exist yet")


@contextmanager
def new_output(out: Path) -> Iterator[Path]:
    """Yield a temporary path like `atomic_output`, but never overwrite an existing output.

    The function checks `out` when the block ends. An export may take days, and another process may create `out` in this time.

    Yields:
        The temporary path.

    Raises:
        SimgapError: `out` exists when the block ends.
    """
    with atomic_output(out) as partial:
        yield partial
        check_new(out)
