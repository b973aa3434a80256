"""Extract from the shards the images that the report shows in its galleries."""

from pathlib import Path

from simgap.data.benchmarks import load_benchmark, read_lines
from simgap.galleries.galleries import write_galleries
from simgap.galleries.pictures import Source
from simgap.params.schema import Params
from simgap.stage.command import stage
from simgap.store.embeddings import Embeddings
from simgap.store.split import read_split


@stage
def main(
    params: Params,
    pool: Path,
    reference: Path,
    benchmarks: Path,
    embeddings: Path,
    splits: Path,
    similarity: Path,
    profiles: Path,
    out: Path,
) -> None:
    classnames = read_lines(Path(params.reference.classnames), "one class name a line")
    sources = {
        "pool": Source(pool, Embeddings(embeddings / "pool"), None),
        "reference": Source(reference, Embeddings(embeddings / "reference"), classnames),
    }
    for name in params.benchmarks.names:
        benchmark = load_benchmark(benchmarks / name)
        sources[name] = Source(benchmark.folder / "test", Embeddings(embeddings / name), benchmark.classnames)
    # The gallery of a benchmark shows the first imagenet-like split whose rule used the benchmark. Splits with training runs
    # come first here, so the gallery prefers them.
    names = dict.fromkeys(["full", *params.runs, *params.prune.imagenet_like])
    read = {name: read_split(splits / name) for name in names}
    write_galleries(sources, params.benchmarks.names, read, splits, similarity, profiles, out)


if __name__ == "__main__":
    main()
