"""Put the embedder on disk: fetched, copied, or trained on the pool."""

from pathlib import Path

import click

from simgap.embed.embedder import make_embedder
from simgap.files import sha256_of, write_json
from simgap.stage import PATH, Params, scratch, stage, state_of


@stage
@click.option("--pool", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(params: Params, pool: Path, out: Path, metrics: Path) -> None:
    model = params.embedder.train.model if params.embedder.train else ""
    config = sha256_of(Path(model)) if model.endswith(".json") else None
    identity = {"embedder": params.embedder, "config": config, "pool": state_of(pool)}
    with scratch("embedder", identity) as folder:
        write_json(metrics, make_embedder(params.embedder, pool, out, folder))


if __name__ == "__main__":
    main()
