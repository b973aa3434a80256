"""Read revisions of the study without a checkout. A revision is a commit or a DVC experiment."""

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
        SimgapError: The command `dvc exp list` failed.
    """
    listed = subprocess.run(["dvc", "exp", "list", "--name-only"], check=False, capture_output=True, text=True)
    if listed.returncode:
        raise SimgapError(
            f"dvc exp list: {' '.join(listed.stderr.split())}; fix the error that DVC reports, and try again"
        )
    return sorted(listed.stdout.split())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


class Revision:
    """A revision of the study.

    Files that git tracks are read from git. Outputs of stages are read from DVC's cache or from a DVC remote.
    """

    def __init__(self, name: str) -> None:
        """Find the revision in the repository.

        Args:
            name: The name of a DVC experiment, or any name of a commit that git accepts.

        Raises:
            SimgapError: There is no such revision.
        """
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        import dvc.api
        from dvc.exceptions import DvcException

        if not name:
            # DVC treats an empty name as the workspace, which is not a revision.
            raise SimgapError("'': is not a revision; choose a name from `dvc exp list`")
        self.name = name
        try:
            self._files = dvc.api.DVCFileSystem(rev=name)
            # DVC checks the revision only when it reads a file. This call makes DVC report an unknown revision now.
            self._files.info("")
        except DvcException as error:
            raise SimgapError(
                f"{name}: is not a revision ({' '.join(str(error).split())}); choose a name from `dvc exp list`"
            ) from None
        self.read, self.params = cache(self._read), cache(self._params)

    def where(self, path: str) -> str:
        """Return the name of a file of this revision in git's notation, `revision:path`."""
        return f"{self.name}:{path}"

    def open(self, path: str) -> IO[bytes]:
        """Open a file of this revision and return a stream of bytes.

        Raises:
            SimgapError: The file does not exist, or it is neither in DVC's cache nor in a DVC remote.
        """
        from dvc_data.index import DataIndexDirError

        try:
            return cast(IO[bytes], self._files.open(path, "rb"))
        except (FileNotFoundError, DataIndexDirError):
            raise SimgapError(
                f"{self.where(path)}: does not exist; fetch it with `dvc pull` (for an experiment, `dvc exp pull`), "
                "or make it again with `dvc exp run`"
            ) from None

    def files(self, folder: str) -> list[str]:
        """Return the sorted paths of the files in a folder of this revision.

        Raises:
            SimgapError: The folder does not exist, or it is neither in DVC's cache nor in a DVC remote.
        """
        from dvc_data.index import DataIndexDirError

        try:
            return sorted(self._files.ls(folder, detail=False))
        except (FileNotFoundError, DataIndexDirError):
            raise SimgapError(
                f"{self.where(folder)}: does not exist; fetch it with `dvc pull` (for an experiment, `dvc exp pull`), "
                "or make it again with `dvc exp run`"
            ) from None

    def _read(self, path: str) -> dict[str, Any]:
        with self.open(path) as stream:
            try:
                content: dict[str, Any] = json.load(stream, parse_constant=_refuse)
            except ValueError as error:
                raise SimgapError(f"{self.where(path)}: not JSON ({error}); make the file again") from None
        return content

    def _params(self) -> Params:
        """Read the params file of this revision and return the validated parameters."""
        with self.open(str(PARAMS_FILE)) as stream:
            return parse_params(stream.read().decode("utf-8", errors="replace"), self.where(str(PARAMS_FILE)))

    def study(self) -> Study:
        """Return the study of this revision. The study reads the metrics files of this revision.

        Raises:
            SimgapError: The metrics files are incomplete, because the study is not finished.
        """
        params = self.params()
        return Study(self, list(params.runs), params.benchmarks.names, params.repeats.seeds)
