"""Score embedder, deduplication and pruning against the marks in a pool that has them."""

from pathlib import Path

import click

from simgap.core.files import write_json
from simgap.data.marks import read_annotations
from simgap.ground_truth.score import score
from simgap.params.load import Params
from simgap.stage.command import PATH, stage
from simgap.store.arrays import read_array
from simgap.store.columns import Similarity
from simgap.store.embeddings import Embeddings


@stage
@click.option("--name", required=True)
@click.option("--pool", type=PATH, required=True)
@click.option("--embeddings", type=PATH, required=True)
@click.option("--similarity", type=PATH, required=True)
@click.option("--splits", type=PATH, required=True)
@click.option("--centroids", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
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
    found = read_array(centroids)
    rule_queries = {}
    for benchmark in params.benchmarks.names:
        used = Similarity(similarity / benchmark).queries(["used_by_rule"]).column("used_by_rule")
        keys = Embeddings(embeddings / benchmark).metadata(["key"]).column("key")
        rule_queries[benchmark] = set(keys.filter(used).to_pylist())
    content = score(
        read_annotations(pool),
        embeddings,
        rule_queries,
        [splits / split for split in names],
        found,
        params.ground_truth[name].eps,
    )
    write_json(metrics, content)


if __name__ == "__main__":
    main()
