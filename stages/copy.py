"""Copy a dataset into the study, so that experiments in temporary workspaces find the data."""

import os
from pathlib import Path

import click

from simgap.data.copy import copy_data
from simgap.params.schema import Params
from simgap.stage.command import stage


@stage
@click.option("--name", required=True)
def main(params: Params, name: str, out: Path) -> None:
    wanted = params.copy[name]
    copy_data(name, Path(os.environ.get("DVC_ROOT", ".")), wanted.source, wanted.folders, wanted.sha256, out)


if __name__ == "__main__":
    main()
