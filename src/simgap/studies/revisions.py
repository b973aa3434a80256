"""Revisions of the study: commits and DVC experiments, read without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from typing import IO, Any, cast

from simgap.core.errors import SimgapError
from simgap.params.load import PARAMS_FILE, parse_params
from simgap.params.schema import Params
from simgap.store.study import Study


def experiments() -> list[str]:
    """Return the names of the DVC experiments that are based on the current commit.

    Raises:
        SimgapError: DVC reports an error.
    """
    listed = subprocess.run(["dvc", "exp", "list", "--name-only"], check=False, capture_output=True, text=True)
    if listed.returncode:
        raise SimgapError(f"dvc exp list: {' '.join(listed.stderr.split())}")
    return sorted(listed.stdout.split())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


class Revision:
    """A revision of the study.

    Files that git tracks come from git. Outputs come from DVC's cache, or from a remote.
    """

    def __init__(self, name: str) -> None:
        """Look the revision up.

        Args:
            name: Name of an experiment, or any name that git has for a commit.

        Raises:
            SimgapError: There is no such revision.
        """
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        import dvc.api
        from dvc.exceptions import DvcException

        if not name:
            # DVC would take an empty name for the workspace.
            raise SimgapError("'': is not a revision; `dvc exp list` has names")
        self.name = name
        try:
            self._files = dvc.api.DVCFileSystem(rev=name)
            # DVC looks the revision up only when a file is requested.
            self._files.info("")
        except DvcException as error:
            raise SimgapError(
                f"{name}: is not a revision ({' '.join(str(error).split())}); `dvc exp list` has names"
            ) from None
        self.read, self.params = cache(self._read), cache(self._params)

    def where(self, path: str) -> str:
        """Return the name of a file of this revision, as git writes it."""
        return f"{self.name}:{path}"

    def open(self, path: str) -> IO[bytes]:
        """Open a file.

        Raises:
            SimgapError: The file does not exist, or neither DVC's cache nor a remote has it.
        """
        from dvc_data.index import DataIndexDirError

        try:
            return cast(IO[bytes], self._files.open(path, "rb"))
        except (FileNotFoundError, DataIndexDirError):
            raise SimgapError(
                f"{self.where(path)}: does not exist; get an output that is not in the cache by `dvc pull` (of an experiment by "
                "`dvc exp pull`), or make it again by `dvc exp run`"
            ) from None

    def files(self, folder: str) -> list[str]:
        """Return the paths of a folder's files, sorted.

        Raises:
            SimgapError: There is no such folder.
        """
        from dvc_data.index import DataIndexDirError

        try:
            return sorted(self._files.ls(folder, detail=False))
        except (FileNotFoundError, DataIndexDirError):
            raise SimgapError(f"{self.where(folder)}: does not exist") from None

    def _read(self, path: str) -> dict[str, Any]:
        with self.open(path) as stream:
            try:
                content: dict[str, Any] = json.load(stream, parse_constant=_refuse)
            except ValueError as error:
                raise SimgapError(f"{self.where(path)}: not JSON ({error})") from None
        return content

    def _params(self) -> Params:
        """Read and check the params file; see `parse_params`."""
        with self.open(str(PARAMS_FILE)) as stream:
            return parse_params(stream.read().decode("utf-8", errors="replace"), self.where(str(PARAMS_FILE)))

    def study(self) -> Study:
        """Return the reader of this revision's study.

        Raises:
            SimgapError: The study is not finished.
        """
        params = self.params()
        return Study(self, list(params.runs), params.benchmarks.names, params.repeats.seeds)
