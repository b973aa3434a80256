"""Make the split `full`, which is the pool without near-duplicates. Every pruning rule starts from this split."""

from dataclasses import asdict
from pathlib import Path

from simgap.core.files import write_json
from simgap.data.fingerprint import fingerprint
from simgap.deduplicate.deduplicate import deduplicate
from simgap.deduplicate.full import write_full
from simgap.params.schema import Params
from simgap.stage.command import stage
from simgap.stage.scratch import scratch
from simgap.store.arrays import write_array
from simgap.store.embeddings import Embeddings


@stage
def main(params: Params, pool: Path, centroids: Path, out: Path, metrics: Path) -> None:
    parameters, resources, embeddings = params.deduplicate, params.resources, Embeddings(pool)
    # Finished sections are as large as the block size says.
    cache_key = {
        "deduplicate": asdict(parameters),
        "block_rows": resources.block_rows,
        "pool": fingerprint(pool),
    }
    with scratch("deduplicate", cache_key, __file__) as folder:
        executor = resources.part_executor()
        found, keep = deduplicate(parameters, embeddings, resources.engine, resources.block_rows, folder, executor)
        write_array(centroids, found)
        write_json(metrics, write_full(parameters, embeddings, keep, params.reference.add_to_pool, out))


if __name__ == "__main__":
    main()
