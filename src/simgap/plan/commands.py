"""`simgap plan`: what a study will need."""

from __future__ import annotations

import os
from pathlib import Path

import click

from simgap.errors import SimgapError
from simgap.stage import PARAMS_FILE, PATH, reports_errors

PRESETS = Path("presets")


def _params_file(named: str | None) -> Path:
    if named is None:
        return PARAMS_FILE
    if named.endswith((".yaml", ".yml")):
        return Path(named)
    file = PRESETS / f"{named}.yaml"
    if not file.is_file():
        choices = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
        raise SimgapError(f"PRESET: {named!r} is unknown; choose from {choices}, or name a params file (*.yaml)")
    return file


@click.command()
@click.argument("preset", required=False)
@click.option(
    "--rates", "files", type=PATH, multiple=True, help="What python -m perf.X --json wrote; several may be given."
)
@click.option("--study", type=PATH, help="A finished study of the same machine, whose logs have rates.")
@click.option("--card-tflops", type=float, help="Most 1e12 FLOP a second of a card, in the precision of training.")
@click.option("--utilisation", type=float, default=0.4, show_default=True, help="Share of them that is used.")
@click.option("--cores", type=int, help="Of processors.  [default: 16 beside each card; else this machine's]")
@click.option("--gpus", type=int, default=1, show_default=True, help="Cards (or machines) that share the work.")
@click.option("--price", type=float, help="Of a card with its cores, or a machine, for an hour.")
@click.option("--pool-samples", type=int, help="[default: counted, else LAION-400M's 407,000,000]")
@click.option("--pool-shards", type=int, help="[default: counted, else LAION-400M's 41,455]")
@click.option("--sample-bytes", type=float, help="Of a pool sample in its tar.  [default: counted, else 24,600]")
@click.option("--full-share", type=float, help="Of the pool, what deduplication leaves.  [default: counted, else 0.5]")
@click.option("--reference-samples", type=int, help="[default: counted, else ImageNet-Train's 1,281,167]")
@click.option("--queries", type=(str, int), multiple=True, help="A benchmark and its images; several may be given.")
@click.option("--json", "out", type=PATH, help="Write every stage instance to this file too.")
@reports_errors
def plan(
    preset: str | None,
    files: tuple[Path, ...],
    study: Path | None,
    card_tflops: float | None,
    utilisation: float,
    cores: int | None,
    gpus: int,
    price: float | None,
    pool_samples: int | None,
    pool_shards: int | None,
    sample_bytes: float | None,
    full_share: float | None,
    reference_samples: int | None,
    queries: tuple[tuple[str, int], ...],
    out: Path | None,
) -> None:
    """Say what each stage of a study needs: PRESET, a params file, or params.yaml.

    Sizes come from data and metrics where they are there. Rates come from --rates, --study or --card-tflops, which replaces
    what they say of embedding, training and similarity; what none of them knows of processors and disks is assumed.
    """
    from simgap.files import write_json
    from simgap.params import load_params
    from simgap.plan import rates
    from simgap.plan.inputs import Given, gather
    from simgap.plan.needs import Planner
    from simgap.plan.report import Machine, as_json, as_table

    if cores is None:
        cores = len(os.sched_getaffinity(0)) if card_tflops is None else 16
    if cores < 1:
        raise SimgapError(f"--cores: {cores} should be at least 1")
    machine = Machine(gpus, price)
    machine.check()
    params = load_params(_params_file(preset))
    given = Given(pool_samples, pool_shards, sample_bytes, full_share, reference_samples, dict(queries))
    inputs = gather(params, given)
    known = rates.assumed(cores)
    if study is not None:
        known = known.joined(rates.logged(study))
    known = known.joined(rates.measured(files))
    if card_tflops is not None:
        known = known.joined(rates.of_card(card_tflops, utilisation))
    planner = Planner(params, inputs, known)
    needs = planner.needs()
    if out is not None:
        if out.is_dir():
            raise SimgapError(f"--json: {out} is a folder; name a file")
        write_json(out, as_json(needs, inputs, known, machine))
    click.echo(as_table(needs, inputs, known, machine, planner.too_large()))
