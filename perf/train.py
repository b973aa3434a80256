"""Training beside open_clip's own program: the same model, pool, batch and precision, in one run. Or a study's training alone."""

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
from simgap.params.train import TrainParameters
from simgap.plan.models import model_size
from simgap.plan.rates import extra_forward_passes, training_flop
from simgap.stage.command import reports_errors
from simgap.train.data import TrainingShard, readable_shards
from simgap.train.train import train

# What open_clip's program runs with; simgap's own is newer.
WEBDATASET = "webdataset==0.2.86"


def parameters_of(model: Path, samples: int, batch_size: int, workers: int, threads: int) -> TrainParameters:
    """Give training parameters for a number of samples, otherwise as open_clip's program has them by default."""
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
        workers=workers,
        threads=threads,
        processes=1,
        readers=1,
        grad_checkpointing=False,
        compile=False,
        shuffle_buffer=5000,
        checkpoint_steps=10**9,
    )


def open_clip_program(
    python: Path, model: Path, pool: Path, samples: int, batch_size: int, workers: int, logs: Path
) -> None:
    """Train on a number of samples by open_clip's program, in a process of its own.

    Raises:
        SimgapError: it fails.
    """
    names = [path.name for path in find_shards(pool)]
    command = [str(python), "-m", "open_clip_train.main", "--dataset-type", "webdataset", "--device", "cpu"]
    command += ["--train-data", f"{pool.resolve()}/{{{names[0][:-4]}..{names[-1][:-4]}}}.tar"]
    command += ["--train-num-samples", str(samples), "--model", f"local-dir:{model.resolve()}", "--precision", "fp32"]
    command += ["--batch-size", str(batch_size), "--epochs", "1", "--workers", str(workers), "--logs", str(logs)]
    environment.call(*command)


def rate(work: Callable[[int], None], samples: int) -> float:
    """Give samples a second, from what twice as many take longer: starting and saving drop out."""
    once, twice = (clocked(partial(work, count))() for count in (samples, 2 * samples))
    return samples / (twice - once)


def of_a_process(parameters: TrainParameters) -> TrainParameters:
    """Give the training of one process of those that a study's have: its share of the batch and of the readers."""
    processes = parameters.processes
    return replace(
        parameters,
        budget="samples_seen",
        batch_size=parameters.batch_size // processes,
        readers=max(1, parameters.readers // processes),
        processes=1,
        checkpoint_steps=10**9,
    )


@click.command()
@click.option(
    "--params", "study", type=click.Path(path_type=Path),
    help="A study's params file: measure the training that it describes, on its pool, without open_clip's program.",
)  # fmt: skip
@click.option("--pool", type=click.Path(path_type=Path), help="[default: of --params, else data/worlds/toy/pool]")
@click.option("--model", type=click.Path(path_type=Path), default=Path("presets/models/pacs.json"), show_default=True)
@click.option("--samples", default=2560, show_default=True, help="Samples of the shorter of two trainings.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--threads", default=1, show_default=True, help="Of simgap's training process; open_clip takes all cores."
)
@click.option("--repeats", default=1, show_default=True)
@click.option(
    "--environment", "folder", type=click.Path(path_type=Path), default="scratch/open_clip_train", show_default=True,
    help="Where what open_clip's program needs is installed, unless it is there.",
)  # fmt: skip
@click.option("--json", "out", type=click.Path(path_type=Path))
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
    """Measure samples a second of both, interleaved, as medians over repeats."""
    if study is None:
        of = parameters_of(model, samples, batch_size, workers, threads)
        pool = pool or Path("data/worlds/toy/pool")
    else:
        # What --model, --batch-size, --workers and --threads say is in it.
        params = load_params(study)
        of = of_a_process(params.train)
        pool = pool or Path(params.pool.path)
    if samples < of.batch_size or samples % of.batch_size:
        raise SimgapError(f"--samples: {samples} should be a multiple of the batch, {of.batch_size}")
    shards: list[TrainingShard] = readable_shards(pool)
    count = sum(len(shard.keys) for shard in shards)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)

        def by_simgap(seen: int) -> None:
            scratch = Path(tempfile.mkdtemp(dir=place))
            train(replace(of, samples_seen=seen), 0, shards, count, scratch / "model", scratch)

        # What a process does once, on its first steps.
        by_simgap(of.batch_size)
        ways = {"simgap": lambda: rate(by_simgap, samples)}
        if study is None:
            python = environment.install(folder, (WEBDATASET,)) / "python"
            fresh = make_model(str(model), place)

            def by_open_clip(seen: int) -> None:
                logs = Path(tempfile.mkdtemp(dir=place))
                open_clip_program(python, fresh, pool, seen, batch_size, workers, logs)

            ways = {"open_clip_train": lambda: rate(by_open_clip, samples), **ways}
        rates = interleaved(ways, repeats)
    medians = {program: statistics.median(values) for program, values in rates.items()}
    table: list[tuple[str, ...]] = [("program", "samples a second", "ratio")]
    for program, median in medians.items():
        table.append((program, f"{median:.0f}", f"{median / next(iter(medians.values())):.2f}"))
    size = model_size(of.model)
    content: dict[str, Any] = {
        "model": json.loads(Path(of.model).read_text())["model_cfg"] if Path(of.model).is_file() else of.model,
        "flop_per_sample": training_flop(size.image_flop, size.text_flop, extra_forward_passes(of, of.processes)),
        "samples": samples,
        "batch_size": of.batch_size,
        "workers": of.workers,
        "threads": of.threads,
        "rates": rates,
        "medians": medians,
    }
    report(table, content, out)


if __name__ == "__main__":
    main()
