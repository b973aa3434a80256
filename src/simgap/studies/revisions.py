"""Revisions of the study: commits and DVC experiments, read where they are, without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from typing import IO, Any, cast

from simgap.core.errors import SimgapError
from simgap.params.load import PARAMS_FILE, parse_params
from simgap.params.schema import Params

# Paths in every revision.
COMPARE = "metrics/compare/compare.json"


def experiments() -> list[str]:
    """Give the names of the DVC experiments that began at the commit which is checked out.

    Raises:
        SimgapError: DVC does not say.
    """
    listed = subprocess.run(["dvc", "exp", "list", "--name-only"], check=False, capture_output=True, text=True)
    if listed.returncode:
        raise SimgapError(f"dvc exp list: {' '.join(listed.stderr.split())}")
    return sorted(listed.stdout.split())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


class Revision:
    """A revision of the study. What git holds of it comes from git, an output from DVC's cache or remote.

    Args:
        name: of an experiment, or anything by which git knows a commit.

    Raises:
        SimgapError: there is no such revision.
    """

    def __init__(self, name: str) -> None:
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        import dvc.api
        from dvc.exceptions import DvcException

        if not name:
            # To DVC it is the workspace.
            raise SimgapError("'': is no revision; `dvc exp list` has names")
        self.name = name
        try:
            self._files = dvc.api.DVCFileSystem(rev=name)
            # The revision is only looked up when something is asked of it.
            self._files.info("")
        except DvcException as error:
            raise SimgapError(
                f"{name}: is no revision ({' '.join(str(error).split())}); `dvc exp list` has names"
            ) from None
        self.read = cache(self._read)

    def where(self, path: str) -> str:
        """Name a file of this revision, as git does."""
        return f"{self.name}:{path}"

    def open(self, path: str) -> IO[bytes]:
        """Open a file.

        Raises:
            SimgapError: it is not there, or neither in DVC's cache nor in a remote.
        """
        from dvc_data.index import DataIndexDirError

        try:
            return cast(IO[bytes], self._files.open(path, "rb"))
        except (FileNotFoundError, DataIndexDirError):
            raise SimgapError(
                f"{self.where(path)}: is not there; an output that is not in the cache comes by `dvc pull`, of an experiment "
                "by `dvc exp pull`, or is made anew by `dvc exp run`"
            ) from None

    def files(self, folder: str) -> list[str]:
        """Give the paths of a folder's files, sorted.

        Raises:
            SimgapError: there is no such folder.
        """
        from dvc_data.index import DataIndexDirError

        try:
            return sorted(self._files.ls(folder, detail=False))
        except (FileNotFoundError, DataIndexDirError):
            raise SimgapError(f"{self.where(folder)}: is not there") from None

    def _read(self, path: str) -> dict[str, Any]:
        with self.open(path) as stream:
            try:
                content: dict[str, Any] = json.load(stream, parse_constant=_refuse)
            except ValueError as error:
                raise SimgapError(f"{self.where(path)}: not JSON ({error})") from None
        return content

    def params(self) -> Params:
        """Read and check its params file.

        Raises:
            SimgapError: see `parse_params`.
        """
        with self.open(str(PARAMS_FILE)) as stream:
            return parse_params(stream.read().decode("utf-8", errors="replace"), self.where(str(PARAMS_FILE)))
