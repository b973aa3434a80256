"""Store arrays in a scratch folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.core.files import atomic_output


def save(path: Path, values: NDArray[Any]) -> None:
    """Write an array to an npy file; the file is either complete or absent."""
    with atomic_output(path) as partial, partial.open("wb") as stream:
        np.save(stream, values)
