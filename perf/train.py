"""Compare the training speed of simgap and open_clip's program, or measure simgap alone with the parameters of a study.

Both programs train the same model on the same pool with the same batch size and precision, in one run.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from perf import environment
from perf.evaluate import make_model
from perf.machine import report
from perf.timing import clocked, interleaved
from simgap.core.errors import SimgapError
from simgap.data.shards import find_shards
from simgap.params.load import load_params
from simgap.params.resources import TrainResources
from simgap.params.train import TrainParameters
from simgap.plan.models import model_size
from simgap.plan.rates import extra_forward_passes, training_flop
from simgap.stage.command import PATH, reports_errors
from simgap.train.data import TrainingShard, readable_shards
from simgap.train.train import train

# open_clip's program has its own environment, because it needs this version of webdataset. simgap uses a newer version.
WEBDATASET = "webdataset==0.2.86"


def parameters_of(model: Path, samples: int, batch_size: int, threads: int) -> TrainParameters:
    """Return parameters for a training run on `samples` samples.

    Parameters that are not arguments have the default values of open_clip's program.
    """
    return TrainParameters(
        model=str(model),
        budget="samples_seen",
        samples_seen=samples,
        epochs=1.0,
        batch_size=batch_size,
        micro_batch_size=None,
        learning_rate=5e-4,
        weight_decay=0.2,
        beta1=0.9,
        beta2=0.98,
        epsilon=1e-6,
        warmup_fraction=0.5,
        crop_scale=0.9,
        precision="fp32",
        threads=threads,
        processes=1,
        readers=1,
        grad_checkpointing=False,
        compile=False,
        shuffle_buffer=5000,
    )


def open_clip_program(
    python: Path, model: Path, pool: Path, samples: int, batch_size: int, workers: int, logs: Path
) -> None:
    """Train on `samples` samples with open_clip's program, in a new process.

    Raises:
        SimgapError: open_clip's program fails.
    """
    names = [path.name for path in find_shards(pool)]
    command = [str(python), "-m", "open_clip_train.main", "--dataset-type", "webdataset", "--device", "cpu"]
    command += ["--train-data", f"{pool.resolve()}/{{{names[0][:-4]}..{names[-1][:-4]}}}.tar"]
    command += ["--train-num-samples", str(samples), "--model", f"local-dir:{model.resolve()}", "--precision", "fp32"]
    command += ["--batch-size", str(batch_size), "--epochs", "1", "--workers", str(workers), "--logs", str(logs)]
    environment.call(*command)


def rate(work: Callable[[int], None], samples: int) -> float:
    """Return the number of samples that `work` trains on per second.

    The function runs `work` for `samples` and for `2 * samples` samples, and uses the difference between the two times. This
    difference does not include the time to start the process and to save the model.
    """
    once, twice = (clocked(partial(work, count))() for count in (samples, 2 * samples))
    return samples / (twice - once)


def one_process(parameters: TrainParameters) -> TrainParameters:
    """Return the parameters for one process of a training run. The process gets its share of the batch and of the readers."""
    processes = parameters.processes
    return replace(
        parameters,
        budget="samples_seen",
        batch_size=parameters.batch_size // processes,
        readers=max(1, parameters.readers // processes),
        processes=1,
    )


@click.command()
@click.option(
    "--params", "study", type=PATH,
    help="Params file of a study. The program then measures only simgap, with the training parameters and the pool of this file.",
)  # fmt: skip
@click.option("--pool", type=PATH, help="Folder of shards.  [default: from --params, or data/worlds/toy/pool]")
@click.option("--model", type=PATH, default="presets/models/pacs.json", show_default=True, help="Config of open_clip.")
@click.option("--samples", default=2560, show_default=True, help="Number of samples in the shorter of two trainings.")
@click.option("--batch-size", default=128, show_default=True, help="Number of samples in a training step.")
@click.option("--workers", default=1, show_default=True, help="Number of processes that decode images.")
@click.option("--threads", default=1, show_default=True, help="Number of threads of simgap. open_clip uses all cores.")
@click.option("--repeats", default=1, show_default=True, help="Number of repeats. The program reports medians.")
@click.option(
    "--environment", "folder", type=PATH, default="scratch/open_clip_train", show_default=True,
    help="Folder of the virtual environment of open_clip's program. The program creates a missing environment.",
)  # fmt: skip
@click.option("--json", "out", type=PATH, help="JSON file to write the results to.")
@reports_errors
def main(
    study: Path | None,
    pool: Path | None,
    model: Path,
    samples: int,
    batch_size: int,
    workers: int,
    threads: int,
    repeats: int,
    folder: Path,
    out: Path | None,
) -> None:
    """Measure how many samples per second each program trains on. Both programs run in turn."""
    if study is None:
        parameters = parameters_of(model, samples, batch_size, threads)
        pool = pool or Path("data/worlds/toy/pool")
    else:
        # The params file replaces --model, --batch-size, --workers and --threads.
        params = load_params(study)
        parameters, workers = one_process(params.train), params.resources.train.workers
        pool = pool or Path(params.pool.path)
    if samples < parameters.batch_size or samples % parameters.batch_size:
        raise SimgapError(f"--samples is {samples}; it must be a multiple of the batch size, {parameters.batch_size}")
    shards: list[TrainingShard] = readable_shards(pool)
    count = sum(len(shard.keys) for shard in shards)
    # No checkpoint is written, because the measurement must not include the time for checkpoints.
    resources = TrainResources(workers, checkpoint_steps=10**9)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)

        def by_simgap(seen: int) -> None:
            scratch = Path(tempfile.mkdtemp(dir=place))
            train(replace(parameters, samples_seen=seen), resources, 0, shards, count, scratch / "model", scratch)

        # The first steps of a process include set-up time, so one step runs before the measurement.
        by_simgap(parameters.batch_size)
        programs = {"simgap": lambda: rate(by_simgap, samples)}
        if study is None:
            python = environment.install(folder, (WEBDATASET,)) / "python"
            fresh = make_model(str(model), place)

            def by_open_clip(seen: int) -> None:
                logs = Path(tempfile.mkdtemp(dir=place))
                open_clip_program(python, fresh, pool, seen, batch_size, workers, logs)

            programs = {"open_clip_train": lambda: rate(by_open_clip, samples), **programs}
        rates = interleaved(programs, repeats)
    medians = {program: statistics.median(values) for program, values in rates.items()}
    table: list[tuple[str, ...]] = [("program", "samples per second", "ratio")]
    for program, median in medians.items():
        table.append((program, f"{median:.0f}", f"{median / next(iter(medians.values())):.2f}"))
    config = Path(parameters.model)
    size = model_size(parameters.model)
    content: dict[str, Any] = {
        "model": json.loads(config.read_text())["model_cfg"] if config.is_file() else parameters.model,
        "flop_per_sample": training_flop(
            size.image_flop, size.text_flop, extra_forward_passes(parameters, parameters.processes)
        ),
        "samples": samples,
        "batch_size": parameters.batch_size,
        "workers": workers,
        "threads": parameters.threads,
        "rates": rates,
        "medians": medians,
    }
    report(table, content, out)


if __name__ == "__main__":
    main()
