"""Count the benchmark images that have a copy in the pool."""

from pathlib import Path

from simgap.core.files import write_json
from simgap.data.annotations import read_annotations
from simgap.leaks.leaks import annotated_copies, find_leaks
from simgap.params.schema import Params
from simgap.stage.command import stage
from simgap.store.columns import Similarity


@stage
def main(params: Params, pool: Path, embeddings: Path, similarity: Path, metrics: Path) -> None:
    names = params.benchmarks.names
    known = annotated_copies(read_annotations(pool), embeddings, names) if params.ground_truth else None
    to_pool = {
        name: Similarity(similarity / name).queries(["pool_similarity"]).column("pool_similarity").to_numpy()
        for name in names
    }
    write_json(metrics, find_leaks(params.leaks, to_pool, known))


if __name__ == "__main__":
    main()
