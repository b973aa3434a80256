"""`simgap plan`: what a study will need."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from simgap.core.errors import SimgapError
from simgap.params.load import PARAMS_FILE
from simgap.params.schema import Params
from simgap.stage.command import PATH, reports_errors

PRESETS = Path("presets")
MOST_CORES = 10**6


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


def _on_cards(params: Params, cards: int) -> tuple[Params, list[str]]:
    """Give the params with a training process on each of so many cards, and a line where they say otherwise.

    Raises:
        SimgapError: a batch cannot be dealt to as many processes.
    """
    embedder = params.embedder
    said = {params.train.processes, *(keys.get("processes", params.train.processes) for keys in params.runs.values())}
    if embedder.train is not None:
        said.add(embedder.train.processes)
        embedder = replace(embedder, train=replace(embedder.train, processes=cards))
    if said == {cards}:
        return params, []
    changed = replace(
        params,
        embedder=embedder,
        train=replace(params.train, processes=cards),
        runs={run: {**keys, "processes": cards} for run, keys in params.runs.items()},
    )
    try:
        embedder.check()
        for run, keys in changed.runs.items():
            changed.train_parameters(keys, f"runs.{run}")
    except SimgapError as error:
        raise SimgapError(f"--gpus: {cards}: {error}") from None
    processes = ", ".join(map(str, sorted(said)))
    return changed, [
        f"trainings: {cards} processes, one a GPU, where train.processes says {processes}: change it, or start them by torchrun"
    ]


@click.command()
@click.argument("preset", required=False)
@click.option(
    "--rates", "files", type=PATH, multiple=True, help="What python -m perf.X --json wrote; several may be given."
)
@click.option("--study", type=PATH, help="A finished study of the same machine, whose logs have rates.")
@click.option("--card-tflops", type=float, help="Most 1e12 FLOP a second of a card, in the precision of training.")
@click.option("--utilisation", type=float, default=0.4, show_default=True, help="Share of them that is used.")
@click.option("--cores", type=int, help="Of processors.  [default: 16 beside each card; else this machine's]")
@click.option("--gpus", type=int, help="Cards, or machines, of the study.  [default: train.processes cards; 1 machine]")
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
    """Say what each stage of a study needs: PRESET, a params file, or params.yaml.

    Sizes come from data and metrics where they are there. Rates come from --rates, --study or --card-tflops, which replaces
    what they say of embedding, training and similarity; what none of them knows of processors and disks is assumed.
    """
    from simgap.core.files import write_json
    from simgap.params.load import load_params
    from simgap.plan import rates
    from simgap.plan.inputs import Given, gather
    from simgap.plan.needs import Planner
    from simgap.plan.report import Machine, as_json, as_table

    if cores is None:
        cores = len(os.sched_getaffinity(0)) if card_tflops is None else 16
    if not 1 <= cores <= MOST_CORES:
        raise SimgapError(f"--cores: {cores} should be at least 1, {MOST_CORES:,} at most")
    params = load_params(_params_file(preset))
    by_params = 1 if card_tflops is None else params.train.processes
    machine = Machine(by_params if gpus is None else gpus, price)
    machine.check()
    given = Given(pool_samples, pool_shards, sample_bytes, full_share, reference_samples, dict(queries))
    inputs = gather(params, given)
    known = rates.assumed(cores)
    if study is not None:
        known = known.joined(rates.logged(study))
    known = known.joined(rates.measured(files))
    if card_tflops is not None:
        known = known.joined(rates.of_card(card_tflops, utilisation))
    notes: list[str] = []
    if known.card and gpus is not None:
        params, notes = _on_cards(params, gpus)
    elif not known.card and params.train.processes > 1:
        notes = [
            f"trainings: a machine's rate as it was measured, whatever train.processes ({params.train.processes}) says"
        ]
    planner = Planner(params, inputs, known)
    needs = planner.needs()
    if out is not None:
        if out.is_dir():
            raise SimgapError(f"--json: {out} is a folder; name a file")
        try:
            write_json(out, as_json(needs, inputs, known, machine))
        except OSError as error:
            raise SimgapError(f"--json: {out} cannot be written ({error.strerror})") from None
    click.echo(as_table(planner, needs, machine, notes))
