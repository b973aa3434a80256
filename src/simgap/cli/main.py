"""What is done to a study outside its graph."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from simgap.cli.convert import convert
from simgap.cli.export import export
from simgap.cli.plan import plan
from simgap.core.errors import SimgapError
from simgap.params.load import PARAMS_FILE
from simgap.stage.command import PATH, reports_errors

METRICS, REPORT, LOCK = Path("metrics"), Path("report"), Path("dvc.lock")


@click.group()
def main() -> None:
    """How much of a CLIP model's benchmark accuracy is owed to training images that resemble the test images?"""


main.add_command(convert)
main.add_command(export)
main.add_command(plan)


@main.command()
@reports_errors
def track() -> None:
    """Log the study to MLflow, what it lacks of it: of models that are trained and evaluated, and of a comparison."""
    from simgap.params.load import load_params
    from simgap.tracking.track import track as track_study

    tracked = track_study(load_params(PARAMS_FILE), METRICS, REPORT, LOCK)
    completed = f", {tracked.completed} of them completed" if tracked.completed else ""
    click.echo(f"MLflow: {tracked.logged} runs logged, {tracked.known} were there{completed}")
    for reason in tracked.unfinished:
        click.echo(f"not logged: {reason}", err=True)


@main.command()
@click.argument("preset")
@click.option("--data", type=PATH, help="Folder of the data that the preset copies.")
@reports_errors
def study(preset: str, data: Path | None) -> None:
    """Run the study of PRESET as a DVC experiment of its own, and show its table; the workspace stays as it is."""
    from simgap.studies.run import run_study

    click.echo(run_study(preset, data))


@main.command()
@click.argument("revisions", nargs=-1)
@click.option("--out", type=PATH, default=REPORT / "sweep", show_default=True, help="Folder that is written anew.")
@reports_errors
def sweep(revisions: tuple[str, ...], out: Path) -> None:
    """Show accuracy against the threshold, over experiments of the commit that is checked out, or over REVISIONS.

    The first revision, or that commit, says which study it is: those of which other parameters differ than threshold, seeds
    and which splits are trained are left out. See docs/sweeps.md.
    """
    from simgap.studies.revisions import Revision, experiments
    from simgap.studies.sweep.page import PAGE, write_sweep
    from simgap.studies.sweep.read import read_sweep

    names = revisions or tuple(experiments())
    if not names:
        raise SimgapError("REVISIONS: there is no experiment of this commit; `dvc exp run -S threshold=...` makes one")
    found = read_sweep([Revision(name) for name in names], Revision(revisions[0] if revisions else "HEAD").params())
    write_sweep(found, out)
    thresholds = ", ".join(f"{threshold:g}" for threshold in found.thresholds)
    click.echo(f"{out / PAGE}: thresholds {thresholds} of {', '.join(found.revisions)}")
    for reason in found.left_out:
        click.echo(f"left out: {reason}", err=True)


@main.command()
@click.argument("first")
@click.argument("second")
@click.option("--out", type=PATH, help="Folder of CSV files of the same, written anew.")
@reports_errors
def overlap(first: str, second: str, out: Path | None) -> None:
    """Say which rows the splits of two revisions have in common, and whether they answer the claims alike.

    FIRST and SECOND are experiments or commits; HEAD is the one that is checked out. See docs/sweeps.md.
    """
    from simgap.studies.overlap.claims import compare_claims
    from simgap.studies.overlap.rows import compare_rows
    from simgap.studies.overlap.tables import text, write_tables
    from simgap.studies.revisions import Revision

    revisions = Revision(first), Revision(second)
    overlaps, claims = list(compare_rows(*revisions)), list(compare_claims(*revisions))
    if out is not None:
        write_tables(overlaps, claims, out)
    click.echo(text(overlaps, claims, first, second))


@main.command()
@click.option("--port", type=int, default=5000, show_default=True)
@reports_errors
def ui(port: int) -> None:
    """Open the MLflow UI on the study's runs, on 127.0.0.1."""
    from simgap.params.load import load_params
    from simgap.tracking.records import MODELS
    from simgap.tracking.track import opened, save_view, store, without_password

    address = store()
    if address.startswith(("http:", "https:")):
        raise SimgapError(
            f"MLFLOW_TRACKING_URI: the runs are on a server; open {without_password(address)} in a browser"
        )
    # Made where there is none: the UI would make it too, and take a stage by surprise that begins meanwhile.
    params = load_params(PARAMS_FILE)
    with opened() as (client, experiments):
        key = save_view(client, experiments[MODELS], params)
        page = f"#/experiments/{experiments[MODELS]}/runs?workflowType=machine_learning"
    click.echo(f"Runs: http://127.0.0.1:{port}/{page}")
    click.echo(f"Accuracy by threshold: http://127.0.0.1:{port}/{page}&compareRunsMode=CHART&viewStateShareKey={key}")
    # One worker serves one person; several are stopped as dead where a busy machine starts them slowly.
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Not an option: the address of a database may hold a password, and commands are seen by all.
    os.execve(sys.executable, command, {**os.environ, "MLFLOW_BACKEND_STORE_URI": address})


@main.command("import-embeddings")
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@click.option("--embedder", type=PATH, required=True, help="open_clip local directory of the model that made them.")
@click.option("--shard-digits", type=click.IntRange(min=1), help="Leading digits of a key that are its shard's number.")
@click.option("--drop-limit", type=click.FloatRange(0, 1), default=0.01, show_default=True)
@click.option("--pool", type=PATH, help="Folder of the shards that rows lie in: it should hold all that they name.")
@reports_errors
def import_embeddings(
    source: Path, out: Path, embedder: Path, shard_digits: int | None, drop_limit: float, pool: Path | None
) -> None:
    """Check clip-retrieval's embeddings in SOURCE and write them to the folder OUT as embeddings of a study.

    In a study the stage embed@pool does the same, see docs/data.md. An import that was stopped goes on where it stood.
    """
    from simgap.embed.imported import import_into

    click.echo(import_into(source, out, embedder, shard_digits, drop_limit, pool))


@main.command("contact-sheet")
@click.argument("benchmarks", type=PATH)
@click.argument("out", type=PATH)
@reports_errors
def contact_sheet(benchmarks: Path, out: Path) -> None:
    """Draw one image of every class of every benchmark in BENCHMARKS into the PNG file OUT."""
    from simgap.cli.contact_sheet import draw_contact_sheet

    draw_contact_sheet(benchmarks, out)


if __name__ == "__main__":
    main()
