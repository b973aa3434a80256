"""List the shards of an object store in a manifest.

The shards stay in the store. Other stages depend on the manifest.
"""

from pathlib import Path

import click

from simgap.data.manifest import write_manifest
from simgap.data.remote import list_shards
from simgap.params.schema import Params
from simgap.stage.command import stage


@stage
@click.option("--name", required=True)
def main(params: Params, name: str, out: Path) -> None:
    write_manifest(list_shards(params.manifest[name].address), out)


if __name__ == "__main__":
    main()
