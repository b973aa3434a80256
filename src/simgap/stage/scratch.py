"""Scratch folders, in which a killed stage leaves finished parts for its next run."""

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
    """Open a folder that outlives a killed stage, and remove it when the block ends without an error.

    The folder lies at the root of the main repository. Its name depends on `cache_key` and on the code of the stage, so a
    stage never continues the work of other inputs, parameters or code. If two processes run one stage at the same time, the
    second waits for the first.

    Args:
        name: Name of the stage and of its output.
        cache_key: Everything that the folder's content depends on, except code.
        code: The stage's file, `__file__`.
        owned: Whether this process creates and removes the folder. Of several processes that run a stage together, one does.

    Yields:
        The folder.
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
