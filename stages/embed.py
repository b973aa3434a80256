"""Embed one set: the pool, the reference or a benchmark."""

from functools import partial
from pathlib import Path

import click

from simgap.clip.model import load, read_dim
from simgap.core.files import sha256_of, write_json
from simgap.data.benchmarks import load_benchmark, read_lines
from simgap.data.fingerprint import fingerprint
from simgap.data.shards import Shard, find_shards
from simgap.embed.embed import embed
from simgap.embed.imported import VECTORS, import_embeddings
from simgap.params.load import Params
from simgap.stage.command import PATH, stage
from simgap.stage.scratch import scratch


@stage
@click.option("--set", "kind", type=click.Choice(["pool", "reference", "benchmark"]), required=True)
@click.option("--data", type=PATH, required=True)
@click.option("--embedder", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(params: Params, kind: str, data: Path, embedder: Path, out: Path, metrics: Path) -> dict[str, float]:
    if kind == "pool" and (data / VECTORS).is_dir():
        digits, embedder_hash = params.pool.shard_digits, sha256_of(embedder)
        identity = {"data": fingerprint(data), "path": data, "embedder": embedder_hash, "shard_digits": digits}
        with scratch(f"embed-{out.name}", identity) as folder:
            dim, limit, pool = read_dim(embedder), params.embed.drop_limit, Path(params.pool.path)
            # Where there are no shards, pool.path is the folder of embeddings too.
            shards_at = None if pool.resolve() == data.resolve() else pool
            accounting, rates = import_embeddings(data, embedder_hash, dim, digits, limit, out, folder, shards_at)
        write_json(metrics, accounting)
        return rates
    classes: int | None = None
    shards: tuple[Shard, ...]
    if kind == "benchmark":
        benchmark = load_benchmark(data)
        shards, classes = benchmark.shards, len(benchmark.classnames)
    else:
        shards = tuple(find_shards(data))
        if kind == "reference":
            classes = len(read_lines(Path(params.reference.classnames), "one class name a line"))
    embedder_hash = sha256_of(embedder)
    identity = {
        # Of the parameters, those that finished parts depend on.
        "batch_size": params.embed.batch_size,
        "precision": params.embed.precision,
        "shards_per_part": params.embed.shards_per_part,
        "embedder": embedder_hash,
        "data": fingerprint(data),
        "path": data,
        "classes": classes,
    }
    with scratch(f"embed-{out.name}", identity) as folder:
        accounting, rates = embed(
            params.embed,
            partial(load, embedder),
            embedder_hash,
            shards,
            out,
            folder,
            classes=classes,
            captioned=kind == "pool",
            by=params.parts,
        )
    write_json(metrics, accounting)
    return rates


if __name__ == "__main__":
    main()
