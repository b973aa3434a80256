"""Define the command line of a stage, and report the errors of commands."""

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
# The user can correct the cause of these errors. Any other OSError is a bug, and the traceback helps to find the bug.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG)


def reports_errors(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command report the errors that a user can correct.

    After a SimgapError, a full disk or a missing permission, the command prints one line and exits with code 1.

    Args:
        function: The function of the command.

    Returns:
        A function with the same parameters, which calls `function` and reports the errors.
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
        function: The function of the stage. Its first parameter takes the checked parameters of the study, and the other
            parameters take the options of the command. Each parameter of type Path becomes a required option, unless
            `click.option` declares the option. If the function returns rates, `write_rates` logs them.

    Returns:
        The command of click.
    """

    @functools.wraps(function)
    def checked(**options: Any) -> None:
        # `gc.freeze` excludes the objects of imported modules from garbage collection, because they live as long as the
        # process. stages/__init__.py turned garbage collection off and explains why.
        gc.freeze()
        gc.enable()
        rates = function(load_params(PARAMS_FILE), **options)
        if rates is not None:
            write_rates(options["metrics"], rates)

    command = reports_errors(checked)
    declared = {option.name for option in getattr(function, "__click_params__", [])}
    # Click lists the last added option first, so the parameters are added in reverse order.
    for name, kind in reversed(get_type_hints(function).items()):
        if kind is Path and name not in declared:
            command = click.option(f"--{name.replace('_', '-')}", type=PATH, required=True)(command)
    return click.command()(command)
