"""Keep the unfinished work of a killed stage in a scratch folder, so that the next run can continue it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from simgap.core.code import code_fingerprint
from simgap.core.files import remove


@contextmanager
def scratch(name: str, cache_key: dict[str, Any], code: str, *, owned: bool = True) -> Iterator[Path]:
    """Create a folder for unfinished work, and remove the folder if the block ends without an error.

    The folder outlives a killed stage. It lies in the folder `scratch` of the main repository. The name of the folder depends
    on `cache_key` and on the code of the stage, so a stage never continues work that other inputs, parameters or code began.
    If two processes run the same stage at the same time, the second process waits for the first.

    Args:
        name: Name of the stage and of its output.
        cache_key: Everything except code that the content of the folder depends on.
        code: The file of the stage, `__file__`.
        owned: Whether this process creates and removes the folder. If several processes run a stage together, one process
            owns the folder.

    Yields:
        The path of the folder.
    """
    content = json.dumps({**cache_key, "code": code_fingerprint(code)}, sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    folder = Path(os.environ.get("DVC_ROOT", ".")) / "scratch" / f"{name}-{digest}"
    if not owned:
        yield folder
        return
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        folder.mkdir(exist_ok=True)
        yield folder
        remove(folder)
