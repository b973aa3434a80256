"""What every stage command does before and around its one library call."""

from __future__ import annotations

import errno
import functools
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from simgap.core.errors import SimgapError
from simgap.params.load import PARAMS_FILE, load_params
from simgap.stage.rates import write_rates

PATH = click.Path(path_type=Path)
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
