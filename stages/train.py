"""Train CLIP on a split, which is applied while the pool's shards are read."""

from pathlib import Path

import click
import numpy as np

from simgap.clip.config import read_model_config
from simgap.core.files import sha256_of, write_json
from simgap.data.benchmarks import read_lines
from simgap.data.fingerprint import fingerprint
from simgap.params.load import Params
from simgap.stage.command import PATH, stage
from simgap.stage.scratch import scratch
from simgap.store.embeddings import Embeddings
from simgap.store.split import read_keep
from simgap.train.data import kept_shards
from simgap.train.process import join, launch
from simgap.train.train import train


@stage
@click.option("--keep", "keep_file", type=PATH, required=True)
@click.option("--embeddings", type=PATH, required=True)
@click.option("--pool", type=PATH, required=True)
@click.option("--reference", type=PATH, required=True)
@click.option("--split", required=True)
@click.option("--seed", type=int, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(
    params: Params,
    keep_file: Path,
    embeddings: Path,
    pool: Path,
    reference: Path,
    split: str,
    seed: int,
    out: Path,
    metrics: Path,
) -> dict[str, float] | None:
    parameters = params.train_parameters(params.runs[split], f"runs.{split}")
    config = read_model_config(parameters.model)
    if launch(parameters.processes, "stages.train"):
        return None
    of_pool = Embeddings(embeddings / "pool")
    keep = read_keep(keep_file, of_pool.rows)
    shards = kept_shards(pool, of_pool.metadata_parts(["shard", "key"]), keep)
    identity = {"train": parameters.identity(), "model": config, "seed": seed}
    identity |= {
        "rows": sha256_of(embeddings / "pool" / "metadata"),
        "keep": sha256_of(keep_file),
        "pool": fingerprint(pool),
    }
    joining = 0
    # Without pool rows it is the reference alone, whatever joins the other splits.
    if params.reference.add_to_pool or not keep.any():
        classnames = read_lines(Path(params.reference.classnames), "one class name a line")
        of_reference = Embeddings(embeddings / "reference")
        joining = of_reference.rows
        rows = of_reference.metadata_parts(["shard", "key"])
        shards += kept_shards(reference, rows, np.ones(joining, np.bool_), classnames)
        identity |= {"reference": fingerprint(reference), "classnames": classnames}
    kept = int(keep.sum())
    with join() as process, scratch(f"train-{out.name}", identity, owned=process.writes) as folder:
        process.wait()
        content, rates = train(parameters, seed, shards, kept + joining, out, folder, process)
        if process.writes:
            write_json(metrics, {**content, "kept_rows": kept, "reference_rows": joining})
    return rates if process.writes else None


if __name__ == "__main__":
    main()
