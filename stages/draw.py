"""Generate a toy world, which consists of a pool, a reference and benchmarks. Equal seeds give equal data."""

from pathlib import Path

import click

from simgap.core.files import write_json
from simgap.params.schema import Params
from simgap.stage.command import stage
from simgap.toy.world import draw_world


@stage
@click.option("--name", required=True)
def main(params: Params, name: str, out: Path, metrics: Path) -> None:
    write_json(metrics, draw_world(params.draw[name], out))


if __name__ == "__main__":
    main()
