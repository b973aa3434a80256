"""Prune the pool so that no row is closer to a query than the reference is, plus the threshold."""

from pathlib import Path

import click

from simgap.core.files import write_json
from simgap.params.load import Params
from simgap.prune.prune import prune_imagenet_like
from simgap.stage.command import PATH, stage


@stage
@click.option("--full", type=PATH, required=True)
@click.option("--similarity", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(params: Params, full: Path, similarity: Path, out: Path, metrics: Path) -> None:
    benchmarks = params.prune.imagenet_like[out.name].benchmarks
    add_to_pool = params.reference.add_to_pool
    write_json(metrics, prune_imagenet_like(full, similarity, benchmarks, params.threshold, add_to_pool, out))


if __name__ == "__main__":
    main()
