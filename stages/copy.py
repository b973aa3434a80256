"""Copy data into the study after checking its SHA-256, so that experiments in temporary workspaces find it."""

import os
import shutil
from pathlib import Path

import click

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output, sha256_of
from simgap.params.load import Params
from simgap.stage.command import PATH, stage


@stage
@click.option("--name", required=True)
@click.option("--out", type=PATH, required=True)
def main(params: Params, name: str, out: Path) -> None:
    wanted = params.copy[name]
    source = Path(os.environ.get("DVC_ROOT", ".")) / wanted.source
    if not source.is_dir():
        raise SimgapError(f"copy.{name}.source: {wanted.source!r} is no folder (looked for {source})")
    for folder in wanted.folders:
        if Path(folder).name != folder:
            raise SimgapError(f"copy.{name}.folders: {folder!r} should be the name of a folder in {wanted.source}")
        if not (source / folder).is_dir():
            raise SimgapError(f"copy.{name}.folders: {wanted.source} has no folder {folder!r}")
    if not wanted.folders:
        raise SimgapError(f"copy.{name}.folders: is empty; name a folder of {wanted.source}")
    with atomic_output(out) as partial:
        for folder in wanted.folders:
            shutil.copytree(source / folder, partial / folder)
        found = sha256_of(partial)
        if found != wanted.sha256:
            raise SimgapError(
                f"copy.{name}.sha256: {wanted.source} has {found}, the params file says {wanted.sha256!r}"
            )


if __name__ == "__main__":
    main()
