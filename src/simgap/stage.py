"""What every stage command does before and around its one library call."""

from __future__ import annotations

import errno
import functools
import gc
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from filelock import FileLock

from simgap.data.manifest import MANIFEST
from simgap.errors import SimgapError
from simgap.files import remove, sha256_of
from simgap.params import Params, load_params
from simgap.tracking.rates import write_rates

PATH = click.Path(path_type=Path)
PARAMS_FILE = Path("params.yaml")
SOURCE = Path(__file__).parent
# What the person at the keyboard can mend; any other OSError is a fault of ours.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG)


def reports_errors(function: Callable[..., None]) -> Callable[..., None]:
    """Turn a SimgapError, and what the system refuses (a full disk, a file without permission), into one line and exit code 1."""

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
        except SimgapError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            click.echo(f"error: {error.filename or 'a file'}: {error.strerror}", err=True)
            sys.exit(1)

    return wrapped


def stage(function: Callable[..., dict[str, float] | None]) -> click.Command:
    """Make a command whose function gets the checked params file first, then its options.

    Rates that it gives back are logged beside the metrics that it wrote.
    """

    @functools.wraps(function)
    def checked(**options: Any) -> None:
        # What was imported lives as long as the process, see stages/__init__.py.
        gc.freeze()
        gc.enable()
        rates = function(load_params(PARAMS_FILE), **options)
        if rates is not None:
            write_rates(options["metrics"], rates)

    return click.command()(reports_errors(checked))


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


def state_of(folder: Path) -> list[tuple[str, int, int | str]]:
    """Name, size and modification time of a folder's files: what a scratch folder's identity holds of its inputs.

    Of a manifest its hash instead of a time: listed anew and found the same, it stands for the same shards.
    """
    return [
        (
            file.relative_to(folder).as_posix(),
            file.stat().st_size,
            sha256_of(file) if file.name == MANIFEST else file.stat().st_mtime_ns,
        )
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]


__all__ = ["PATH", "Params", "reports_errors", "scratch", "stage", "state_of"]
