"""Put the embedder on disk: fetched, copied, or trained on the pool."""

from pathlib import Path

import click

from simgap.clip.config import read_model_config
from simgap.core.files import write_json
from simgap.data.fingerprint import fingerprint
from simgap.params.load import Params
from simgap.stage.command import PATH, stage
from simgap.stage.scratch import scratch
from simgap.train.embedder import make_embedder
from simgap.train.process import join, launch


@stage
@click.option("--pool", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(params: Params, pool: Path, out: Path, metrics: Path) -> None:
    config = None
    if (training := params.embedder.train) is not None:
        config = read_model_config(training.model, "embedder.train.model")
        if launch(training.processes, "stages.embedder"):
            return
    identity = {"embedder": params.embedder.identity(), "config": config, "pool": fingerprint(pool)}
    with join() as process, scratch("embedder", identity, owned=process.writes) as folder:
        process.wait()
        content = make_embedder(params.embedder, pool, out, folder, process)
        if process.writes:
            write_json(metrics, content)


if __name__ == "__main__":
    main()
