"""Compute or import the embeddings of the pool, the reference or one benchmark."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from simgap.clip.model import load, read_dim
from simgap.core.files import sha256_of, write_json
from simgap.data.fingerprint import fingerprint
from simgap.embed.embed import embed
from simgap.embed.imported import VECTORS, import_embeddings
from simgap.embed.sets import find_set
from simgap.params.schema import Params
from simgap.stage.command import stage
from simgap.stage.scratch import scratch


@stage
@click.option("--set", "kind", type=click.Choice(["pool", "reference", "benchmark"]), required=True)
def main(params: Params, kind: str, data: Path, embedder: Path, out: Path, metrics: Path) -> dict[str, float]:
    imports = kind == "pool" and (data / VECTORS).is_dir()
    found = None if imports else find_set(kind, data, Path(params.reference.classnames))
    limit, embedder_hash = params.limits.drop_limit, sha256_of(embedder)
    cache_key = {"data": fingerprint(data), "path": data, "embedder": embedder_hash}
    if found is None:
        pool, digits = Path(params.pool.path), params.pool.shard_digits
        # If a study has no shards, pool.path is the folder of the embeddings. There are no shards to check in this case.
        shards_at = None if pool.resolve() == data.resolve() else pool
        with scratch(f"embed-{out.name}", {**cache_key, "shard_digits": digits}, __file__) as folder:
            accounting, rates = import_embeddings(
                data, embedder_hash, read_dim(embedder), digits, limit, out, folder, shards_at
            )
    else:
        cache_key |= {"embed": asdict(params.embed), "classes": found.classes}
        with scratch(f"embed-{out.name}", cache_key, __file__) as folder:
            accounting, rates = embed(
                params.embed, partial(load, embedder), embedder_hash, found.shards, out, folder,
                classes=found.classes, captioned=found.captioned, decoders=params.resources.decoders, drop_limit=limit,
                executor=params.resources.part_executor(),
            )  # fmt: skip
    write_json(metrics, accounting)
    return rates


if __name__ == "__main__":
    main()
