"""Define the command `simgap plan`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from simgap.core.errors import SimgapError
from simgap.params.load import PARAMS_FILE
from simgap.stage.command import PATH, reports_errors

PRESETS = Path("presets")
FILE = click.Path(path_type=Path, dir_okay=False)
# With --card-tflops, the plan is for a GPU of another machine. The plan assumes that the other machine has this many
# CPU cores for the GPU.
CORES_BESIDE_A_CARD = 16


def _params_file(preset: str | None) -> Path:
    if preset is None:
        return PARAMS_FILE
    if preset.endswith((".yaml", ".yml")):
        return Path(preset)
    file = PRESETS / f"{preset}.yaml"
    if not file.is_file():
        choices = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
        raise SimgapError(f"PRESET is {preset!r}; choose from {choices}, or name a params file (*.yaml)")
    return file


@click.command()
@click.argument("preset", required=False)
@click.option(
    "--rates",
    "files",
    type=PATH,
    multiple=True,
    help="JSON file of a benchmark, from python -m perf.NAME --json. Repeatable.",
)
@click.option("--study", type=PATH, help="Folder of a finished study on the same machine. Its logs contain rates.")
@click.option("--card-tflops", type=float, help="Peak speed of one GPU in TFLOP/s, in the precision of training.")
@click.option(
    "--utilisation", type=float, default=0.4, show_default=True, help="Share of the peak speed that training reaches."
)
@click.option(
    "--cores",
    type=int,
    help="Cores of one machine.  [default: 16 beside each GPU with --card-tflops, else this machine's]",
)
@click.option("--gpus", type=int, help="Number of GPUs or machines.  [default: train.processes for GPUs, else 1]")
@click.option("--price", type=float, help="Price per hour of one GPU with its cores, or of one machine.")
@click.option("--pool-samples", type=int, help="Number of samples in the pool.  [default: counted, else 407,000,000]")
@click.option("--pool-shards", type=int, help="Number of shards in the pool.  [default: counted, else 41,455]")
@click.option("--sample-bytes", type=float, help="Bytes of one pool sample in a tar.  [default: counted, else 24,600]")
@click.option(
    "--full-share", type=float, help="Share of the pool that deduplication keeps.  [default: counted, else 0.5]"
)
@click.option(
    "--reference-samples", type=int, help="Number of samples in the reference.  [default: counted, else 1,281,167]"
)
@click.option(
    "--queries", type=(str, int), multiple=True, help="Name of a benchmark and number of its images. Repeatable."
)
@click.option("--json", "out", type=FILE, help="JSON file for the predictions of each stage.")
@reports_errors
def plan(
    preset: str | None,
    files: tuple[Path, ...],
    study: Path | None,
    card_tflops: float | None,
    utilisation: float,
    cores: int | None,
    gpus: int | None,
    price: float | None,
    pool_samples: int | None,
    pool_shards: int | None,
    sample_bytes: float | None,
    full_share: float | None,
    reference_samples: int | None,
    queries: tuple[tuple[str, int], ...],
    out: Path | None,
) -> None:
    """Predict what a study needs before it runs.

    The plan covers embedding, similarity, training and evaluation. It lists rows, disk space, bytes read, memory, hours and
    cost. PRESET is the name of a preset or a params file. The default is params.yaml.

    The command counts sizes in the data and metrics if these exist. Rates come from --study, --rates and --card-tflops. If
    several of these options give the same rate, --card-tflops overrides --rates, and --rates overrides --study.
    """
    from simgap.core.files import write_json
    from simgap.params.load import load_params
    from simgap.plan import rates, sizes
    from simgap.plan.needs import Planner
    from simgap.plan.numbers import LARGEST, SMALLEST, check_range
    from simgap.plan.table import as_json, as_text

    options = {
        sizes.SAMPLES: ("--pool-samples", pool_samples, 1),
        sizes.SHARDS: ("--pool-shards", pool_shards, 1),
        sizes.SAMPLE_BYTES: ("--sample-bytes", sample_bytes, 1),
        sizes.SHARE_OF_FULL: ("--full-share", full_share, SMALLEST),
        sizes.REFERENCE: ("--reference-samples", reference_samples, 1),
        **{sizes.queries_of(name): (f"--queries {name}", count, 1) for name, count in queries},
    }
    for option, value, least in [*options.values(), ("--gpus", gpus, 1), ("--cores", cores, 1), ("--price", price, 0)]:
        check_range(option, value, least, 1 if option == "--full-share" else LARGEST)
    params = load_params(_params_file(preset))
    for name, _ in queries:
        if name not in params.benchmarks.names:
            raise SimgapError(f"--queries names {name!r}; choose from {', '.join(params.benchmarks.names)}")
    found = sizes.gather(params, {name: value for name, (_, value, _) in options.items() if value is not None})
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if card_tflops is None else CORES_BESIDE_A_CARD
    known = rates.assumed(cores)
    if study is not None:
        known = known.joined(rates.logged(study))
    known = known.joined(rates.measured(files))
    if card_tflops is not None:
        known = known.joined(rates.card_rates(card_tflops, utilisation))
    planner = Planner(params, found, known, gpus or (params.train.processes if known.card else 1))
    try:
        needs = planner.needs()
    except OverflowError:
        raise SimgapError(f"{_params_file(preset)}: a number is too large to plan with; use smaller numbers") from None
    if out is not None:
        write_json(out, as_json(planner, needs, price))
    click.echo(as_text(planner, needs, price))
