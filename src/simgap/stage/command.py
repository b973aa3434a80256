"""The command line of a stage, and how commands report errors."""

from __future__ import annotations

import errno
import functools
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import click

from simgap.core.errors import SimgapError
from simgap.params.load import PARAMS_FILE, load_params
from simgap.stage.rates import write_rates

PATH = click.Path(path_type=Path)
# The user can correct the cause of these errors. Any other OSError is a bug, and its traceback helps.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG)


def reports_errors(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command print one line and exit with code 1 on a SimgapError, a full disk or a missing permission.

    Args:
        function: The function of the command.

    Returns:
        The function that the command calls instead.
    """

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
    """Make the command of a stage.

    Args:
        function: Takes the checked params file, then the options of the command. Each further parameter of type Path becomes
            a required option, unless `click.option` declares it. If the function returns rates, they are logged beside the
            metrics file that it wrote.

    Returns:
        The command.
    """

    @functools.wraps(function)
    def checked(**options: Any) -> None:
        # Imported modules live as long as the process, so garbage collection can skip them; see stages/__init__.py.
        gc.freeze()
        gc.enable()
        rates = function(load_params(PARAMS_FILE), **options)
        if rates is not None:
            write_rates(options["metrics"], rates)

    command = reports_errors(checked)
    declared = {option.name for option in getattr(function, "__click_params__", [])}
    # Click lists the option that is added last first.
    for name, kind in reversed(get_type_hints(function).items()):
        if kind is Path and name not in declared:
            command = click.option(f"--{name.replace('_', '-')}", type=PATH, required=True)(command)
    return click.command()(command)
