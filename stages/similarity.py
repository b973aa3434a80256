"""Measure the similarity of the pool to one benchmark.

One pass over the pool computes every column that needs both the pool and the benchmark.
"""

from dataclasses import asdict
from pathlib import Path

from simgap.core.files import write_json
from simgap.data.fingerprint import fingerprint
from simgap.params.schema import Params
from simgap.similarity.measure import measure, rule_queries
from simgap.stage.command import stage
from simgap.stage.scratch import scratch
from simgap.store.embeddings import Embeddings


@stage
def main(params: Params, pool: Path, reference: Path, benchmark: Path, out: Path, metrics: Path) -> None:
    resources, queries = params.resources, Embeddings(benchmark)
    used = rule_queries(queries.rows, params.benchmarks.query_fraction, params.benchmarks.query_seed)
    cache_key = {
        "similarity": asdict(params.similarity),
        "used": used.tobytes().hex(),
        **{folder.name: fingerprint(folder) for folder in (pool, reference, benchmark)},
    }
    with scratch(f"similarity-{out.name}", cache_key, __file__) as folder:
        sets = (Embeddings(pool), Embeddings(reference), queries)
        executor = resources.part_executor()
        write_json(metrics, measure(params.similarity, *sets, used, out, folder, resources.engine, executor))


if __name__ == "__main__":
    main()
