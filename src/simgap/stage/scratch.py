"""Scratch folders: what a killed stage leaves for its next run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from simgap.core.files import remove, sha256_of

SOURCE = Path(__file__).parents[1]


@contextmanager
def scratch(stage_name: str, identity: dict[str, Any], *, owned: bool = True) -> Iterator[Path]:
    """Give a folder that outlives a killed stage, and remove it when the block ends well.

    It lies at the main repository's root and is named by the stage, by `identity`, which has to hold all that its content
    depends on, and by simgap's own code, so that a stage never goes on from another's files. Of two processes that run one
    stage at the same time, the second waits for the first.

    Args:
        owned: whether this process makes and removes the folder; of several that run a stage together one does.
    """
    identity = {**identity, "code": sha256_of(SOURCE, "*.py")}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("DVC_ROOT", ".")) / "scratch" / f"{stage_name}-{digest}"
    if not owned:
        yield folder
        return
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        folder.mkdir(exist_ok=True)
        yield folder
        remove(folder)
