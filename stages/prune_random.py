"""Draw a control: as many random rows as another split keeps, or a share of them."""

from pathlib import Path

import click

from simgap.core.files import write_json
from simgap.params.load import Params
from simgap.prune.prune import prune_random
from simgap.stage.command import PATH, stage
from simgap.store.split import read_split


@stage
@click.option("--full", type=PATH, required=True)
@click.option("--size-of", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(params: Params, full: Path, size_of: Path, out: Path, metrics: Path) -> None:
    rule = params.prune.random[out.name]
    size = read_split(size_of).kept
    content = prune_random(full, rule.size_of, size, rule.keep, rule.seed, params.reference.add_to_pool, out)
    write_json(metrics, content)


if __name__ == "__main__":
    main()
