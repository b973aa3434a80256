"""Training beside open_clip's own program: the same model, pool, batch and precision, in one run."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from perf.machine import report
from simgap.data.shards import shard_paths
from simgap.embed.model import save
from simgap.train.data import TrainingShard, readable_shards
from simgap.train.parameters import TrainParameters
from simgap.train.train import build, read_model_config, train

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
    model: Path, pool: Path, samples: int, batch_size: int, workers: int, packages: Path, logs: Path
) -> None:
    """Train on a number of samples by open_clip's program, in a process of its own."""
    names = [path.name for path in shard_paths(pool)]
    command = [sys.executable, "-m", "open_clip_train.main", "--dataset-type", "webdataset", "--device", "cpu"]
    command += ["--train-data", f"{pool.resolve()}/{{{names[0][:-4]}..{names[-1][:-4]}}}.tar"]
    command += ["--train-num-samples", str(samples), "--model", f"local-dir:{model.resolve()}", "--precision", "fp32"]
    command += ["--batch-size", str(batch_size), "--epochs", "1", "--workers", str(workers), "--logs", str(logs)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(packages)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(f"open_clip_train ended with {done.returncode}: {done.stderr[-2000:]}")


def rate(work: Callable[[int], None], samples: int) -> float:
    """Give samples a second, from what twice as many take longer: starting and saving drop out."""
    seconds = []
    for count in (samples, 2 * samples):
        begun = time.perf_counter()
        work(count)
        seconds.append(time.perf_counter() - begun)
    return samples / (seconds[1] - seconds[0])


@click.command()
@click.option("--pool", type=click.Path(path_type=Path), default=Path("data/worlds/toy/pool"), show_default=True)
@click.option("--model", type=click.Path(path_type=Path), default=Path("presets/models/pacs.json"), show_default=True)
@click.option("--samples", default=2560, show_default=True, help="Samples of the shorter of two trainings.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--threads", default=1, show_default=True, help="Of simgap's training process; open_clip takes all cores."
)
@click.option("--repeats", default=1, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(
    pool: Path, model: Path, samples: int, batch_size: int, workers: int, threads: int, repeats: int, out: Path | None
) -> None:
    """Measure samples a second of both, interleaved, as medians over repeats."""
    shards: list[TrainingShard] = readable_shards(pool)
    count = sum(len(shard.keys) for shard in shards)
    rates: dict[str, list[float]] = {"open_clip_train": [], "simgap": []}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        packages = place / "packages"
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(packages),
            WEBDATASET,
        ]
        subprocess.run(install, check=True, capture_output=True)
        config = read_model_config(str(model))
        clip, _ = build(config, 0, place)
        save(clip, config, place / "model")

        def by_open_clip(seen: int) -> None:
            logs = Path(tempfile.mkdtemp(dir=place))
            open_clip_program(place / "model", pool, seen, batch_size, workers, packages, logs)

        def by_simgap(seen: int) -> None:
            scratch = Path(tempfile.mkdtemp(dir=place))
            train(
                parameters_of(model, seen, batch_size, workers, threads), 0, shards, count, scratch / "model", scratch
            )

        for _ in range(repeats):
            rates["open_clip_train"].append(rate(by_open_clip, samples))
            rates["simgap"].append(rate(by_simgap, samples))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    table: list[tuple[str, ...]] = [("program", "samples a second", "ratio")]
    for program, median in medians.items():
        table.append((program, f"{median:.0f}", f"{median / medians['open_clip_train']:.2f}"))
    content: dict[str, Any] = {
        "model": json.loads(model.read_text())["model_cfg"] if model.is_file() else str(model),
        "samples": samples,
        "batch_size": batch_size,
        "workers": workers,
        "threads": threads,
        "rates": rates,
        "medians": medians,
    }
    report(table, content, out)


if __name__ == "__main__":
    main()
