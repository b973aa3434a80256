"""Make the split `full`: the pool without near-duplicates, from which every rule starts."""

from pathlib import Path

import click

from simgap.core.files import write_json
from simgap.data.fingerprint import fingerprint
from simgap.deduplicate.deduplicate import deduplicate
from simgap.params.load import Params
from simgap.stage.command import PATH, stage
from simgap.stage.scratch import scratch
from simgap.store.arrays import write_array
from simgap.store.embeddings import Embeddings
from simgap.store.split import Split, write_split


@stage
@click.option("--pool", type=PATH, required=True)
@click.option("--centroids", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(params: Params, pool: Path, centroids: Path, out: Path, metrics: Path) -> None:
    embeddings = Embeddings(pool)
    identity = {"deduplicate": params.deduplicate, "pool": fingerprint(pool)}
    with scratch("deduplicate", identity) as folder:
        found, keep = deduplicate(params.deduplicate, embeddings, params.similarity.engine, folder, params.parts)
        write_array(centroids, found)
        split = Split(
            rule="full",
            parameters={"eps": params.deduplicate.eps, "clusters": params.deduplicate.clusters},
            benchmarks=[],
            threshold=None,
            kept=int(keep.sum()),
            pool_rows=embeddings.rows,
            kept_description="all rows that are no near-duplicate of a lower row",
            reference_rows=params.reference.add_to_pool,
            row_order=embeddings.row_order,
            controls=None,
        )
        content = write_split(split, keep, out)
        write_json(metrics, {**content, "read": split.pool_rows, "dropped/duplicate": split.pool_rows - split.kept})


if __name__ == "__main__":
    main()
