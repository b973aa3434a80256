"""Score the embedder, deduplication and pruning against the ground truth of an annotated pool."""

from pathlib import Path

import click

from simgap.core.files import write_json
from simgap.data.annotations import read_annotations
from simgap.ground_truth.queries import rule_query_keys
from simgap.ground_truth.score import score
from simgap.params.schema import Params
from simgap.stage.command import stage
from simgap.store.arrays import read_array


@stage
@click.option("--name", required=True)
def main(
    params: Params,
    name: str,
    pool: Path,
    embeddings: Path,
    similarity: Path,
    splits: Path,
    centroids: Path,
    metrics: Path,
) -> None:
    names = ["full", *(split for rule in params.prune.rules().values() for split in rule)]
    content = score(
        read_annotations(pool),
        embeddings,
        rule_query_keys(embeddings, similarity, params.benchmarks.names),
        [splits / split for split in names],
        read_array(centroids),
        params.ground_truth[name].eps,
    )
    write_json(metrics, content)


if __name__ == "__main__":
    main()
