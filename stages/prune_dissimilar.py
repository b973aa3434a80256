"""Keep the rows that are most similar to the benchmarks."""

from pathlib import Path

import click

from simgap.core.files import write_json
from simgap.params.load import Params
from simgap.prune.prune import prune_by_similarity
from simgap.stage.command import PATH, stage


@stage
@click.option("--full", type=PATH, required=True)
@click.option("--similarity", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(params: Params, full: Path, similarity: Path, out: Path, metrics: Path) -> None:
    rule = params.prune.dissimilar[out.name]
    content = prune_by_similarity(
        full, similarity, rule.benchmarks, rule.join, rule.keep, params.reference.add_to_pool, out, most_similar=True
    )
    write_json(metrics, content)


if __name__ == "__main__":
    main()
