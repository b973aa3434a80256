"""Copy a dataset into the study, and check the checksum of the copy."""

from __future__ import annotations

import shutil
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output, sha256_of


def copy_data(name: str, root: Path, source: str, folders: list[str], sha256: str, out: Path) -> None:
    """Copy folders of a dataset, so that experiments in temporary workspaces find the data.

    Args:
        name: Name of the dataset under `copy` in the params file, for error messages.
        root: Base folder of a relative `source`.
        source: Folder of the dataset.
        folders: Names of the folders to copy from `source`.
        sha256: Expected checksum of all copied folders together. `sha256_of` computes it.
        out: Folder to write.

    Raises:
        SimgapError: A folder is missing, or the checksum of the copied folders is not `sha256`.
    """
    place = f"params.yaml: copy.{name}"
    if not (root / source).is_dir():
        raise SimgapError(f"{place}.source is {source!r}; there must be a folder {root / source}")
    if not folders:
        raise SimgapError(f"{place}.folders is empty; name a folder in {source}")
    for folder in folders:
        if Path(folder).name != folder or not (root / source / folder).is_dir():
            raise SimgapError(f"{place}.folders: {folder!r} must be the name of a folder in {source}")
    with atomic_output(out) as partial:
        for folder in folders:
            shutil.copytree(root / source / folder, partial / folder)
        found = sha256_of(partial)
        if found != sha256:
            raise SimgapError(f"{place}.sha256 is {sha256!r}, but the files in {source} have {found}; correct either")
