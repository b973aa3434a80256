"""Score embedder, deduplication and pruning against the marks in a pool that has them."""

from pathlib import Path

import click
import numpy as np

from simgap.files import write_json
from simgap.stage import PATH, Params, stage
from simgap.truth.marks import read_marks
from simgap.truth.score import score


@stage
@click.option("--name", required=True)
@click.option("--pool", type=PATH, required=True)
@click.option("--embeddings", type=PATH, required=True)
@click.option("--splits", type=PATH, required=True)
@click.option("--centroids", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(params: Params, name: str, pool: Path, embeddings: Path, splits: Path, centroids: Path, metrics: Path) -> None:
    names = ["full", *(split for rule in params.prune.rules().values() for split in rule)]
    found = np.load(centroids, allow_pickle=False)
    content = score(
        read_marks(pool),
        embeddings,
        params.benchmarks.names,
        [splits / split for split in names],
        found,
        params.ground_truth[name].eps,
    )
    write_json(metrics, content)


if __name__ == "__main__":
    main()
