"""Write the embedder to the disk. The stage downloads or copies the embedder, or trains it on the pool."""

from dataclasses import asdict
from pathlib import Path

from simgap.core.files import write_json
from simgap.data.fingerprint import fingerprint
from simgap.params.schema import Params
from simgap.stage.command import stage
from simgap.stage.scratch import scratch
from simgap.train.embedder import make_embedder
from simgap.train.process import join, launch
from simgap.train.split_data import training_key


@stage
def main(params: Params, pool: Path, out: Path, metrics: Path) -> None:
    training = params.embedder.train
    if training is not None and launch(training.processes, "stages.embedder"):
        return
    embedder = {**asdict(params.embedder), "train": training and training_key(training)}
    cache_key = {"embedder": embedder, "pool": fingerprint(pool)}
    with join() as process, scratch("embedder", cache_key, __file__, owned=process.writes) as folder:
        process.wait()
        content = make_embedder(params.embedder, params.resources.train, pool, out, folder, process)
        if process.writes:
            write_json(metrics, content)


if __name__ == "__main__":
    main()
