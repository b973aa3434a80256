"""Train CLIP on a split.

The stage reads the shards of the pool and skips the samples that the split does not keep.
"""

from pathlib import Path

import click

from simgap.core.files import write_json
from simgap.params.schema import Params
from simgap.stage.command import stage
from simgap.stage.scratch import scratch
from simgap.train.overrides import train_parameters
from simgap.train.process import join, launch
from simgap.train.split_data import read_split_data, training_key
from simgap.train.train import train


@stage
@click.option("--split", required=True)
@click.option("--seed", type=int, required=True)
def main(
    params: Params,
    keep: Path,
    embeddings: Path,
    pool: Path,
    reference: Path,
    split: str,
    seed: int,
    out: Path,
    metrics: Path,
) -> dict[str, float] | None:
    parameters = train_parameters(params, split)
    if launch(parameters.processes, "stages.train"):
        return None
    classnames, add_reference = Path(params.reference.classnames), params.reference.add_to_pool
    data = read_split_data(keep, embeddings, pool, reference, classnames, add_reference)
    cache_key = {"train": training_key(parameters), "seed": seed, **data.cache_key}
    with join() as process, scratch(f"train-{out.name}", cache_key, __file__, owned=process.writes) as folder:
        process.wait()
        resources = params.resources.train
        content, rates = train(parameters, resources, seed, data.shards, data.samples, out, folder, process)
        if process.writes:
            write_json(metrics, {**content, "kept_rows": data.kept_rows, "reference_rows": data.reference_rows})
    return rates if process.writes else None


if __name__ == "__main__":
    main()
