"""Make the split `full`: the pool without near-duplicates, from which every rule starts."""

from pathlib import Path

import click

from simgap.deduplicate.arrays import save
from simgap.deduplicate.deduplicate import deduplicate
from simgap.embed.store import Embeddings
from simgap.files import write_json
from simgap.prune.split import Split, write_split
from simgap.stage import PATH, Params, scratch, stage, state_of


@stage
@click.option("--pool", type=PATH, required=True)
@click.option("--centroids", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(params: Params, pool: Path, centroids: Path, out: Path, metrics: Path) -> None:
    embeddings = Embeddings(pool)
    identity = {"deduplicate": params.deduplicate, "pool": state_of(pool)}
    with scratch("deduplicate", identity) as folder:
        found, keep = deduplicate(params.deduplicate, embeddings, params.similarity.engine, folder, params.parts)
        save(centroids, found)
        split = Split(
            rule="full",
            parameters={"eps": params.deduplicate.eps, "clusters": params.deduplicate.clusters},
            benchmarks=[],
            threshold=None,
            kept=int(keep.sum()),
            pool_rows=embeddings.rows,
            kept_end="all rows that are no near-duplicate of a lower row",
            reference_rows=params.reference.add_to_pool,
            row_order=embeddings.row_order,
            controls=None,
        )
        content = write_split(split, keep, out)
        write_json(metrics, {**content, "read": split.pool_rows, "dropped/duplicate": split.pool_rows - split.kept})


if __name__ == "__main__":
    main()
