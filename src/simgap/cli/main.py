"""The command line program `simgap`."""

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
@click.version_option(package_name="simgap", message="simgap %(version)s")
def main() -> None:
    """Measure how much of CLIP's benchmark accuracy comes from training images that resemble the test images.

    `dvc repro` runs the study. These commands prepare data, and use the results of the study.
    """


main.add_command(convert)
main.add_command(export)
main.add_command(plan)


@main.command()
@reports_errors
def track() -> None:
    """Log every result that MLflow does not have yet.

    Results are trained and evaluated models, and the comparison of the study.
    """
    from simgap.params.load import load_params
    from simgap.tracking.track import track as track_study

    tracked = track_study(load_params(PARAMS_FILE), METRICS, REPORT, LOCK)
    completed = f", {tracked.completed} of them completed" if tracked.completed else ""
    click.echo(f"MLflow: {tracked.logged} runs logged, {tracked.known} were there{completed}")
    for reason in tracked.unfinished:
        click.echo(f"not logged: {reason}", err=True)


@main.command()
@click.argument("preset")
@click.option("--data", type=PATH, help="Folder from which the preset copies its data.")
@reports_errors
def study(preset: str, data: Path | None) -> None:
    """Run the study of PRESET as a DVC experiment.

    The command prints the study's table. The workspace does not change.
    """
    from simgap.studies.run import run_study

    click.echo(run_study(preset, data))


@main.command()
@click.argument("revisions", nargs=-1)
@click.option(
    "--out",
    type=PATH,
    default=REPORT / "sweep",
    show_default=True,
    help="Folder to write; it is replaced if it exists.",
)
@reports_errors
def sweep(revisions: tuple[str, ...], out: Path) -> None:
    """Show how accuracy depends on the threshold.

    REVISIONS are commits or experiments; the default is all experiments of the current commit. They must have the parameters
    of the first revision, or of the current commit, except threshold, seeds and the list of trained splits. Others are left
    out. See docs/sweeps.md.
    """
    from simgap.studies.revisions import Revision, experiments
    from simgap.studies.sweep.page import PAGE, write_sweep
    from simgap.studies.sweep.read import read_sweep

    names = revisions or tuple(experiments())
    if not names:
        raise SimgapError("REVISIONS: this commit has no experiment; run `dvc exp run -S threshold=...` first")
    found = read_sweep([Revision(name) for name in names], Revision(revisions[0] if revisions else "HEAD").params())
    write_sweep(found, out)
    thresholds = ", ".join(f"{threshold:g}" for threshold in found.thresholds)
    click.echo(f"{out / PAGE}: thresholds {thresholds} of {', '.join(found.revisions)}")
    for reason in found.left_out:
        click.echo(f"left out: {reason}", err=True)


@main.command()
@click.argument("first")
@click.argument("second")
@click.option("--out", type=PATH, help="Folder for CSV files of the tables; it is replaced if it exists.")
@reports_errors
def overlap(first: str, second: str, out: Path | None) -> None:
    """Compare the splits and claims of two revisions.

    The command prints how many rows the splits share, and both answers to each claim. FIRST and SECOND are experiments or
    commits; HEAD is the current commit. See docs/sweeps.md.
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
@click.option("--port", type=int, default=5000, show_default=True, help="Port of the server.")
@reports_errors
def ui(port: int) -> None:
    """Open the MLflow UI on the study's runs, on 127.0.0.1."""
    from simgap.params.load import load_params
    from simgap.tracking.store import MODELS, open_store, store_address, without_password
    from simgap.tracking.view import save_view

    address = store_address()
    if address.startswith(("http:", "https:")):
        raise SimgapError(
            f"MLFLOW_TRACKING_URI: the runs are on a server; open {without_password(address)} in a browser"
        )
    params = load_params(PARAMS_FILE)
    # This creates the store if there is none. If the UI did it, it could collide with a stage that starts to log.
    with open_store() as (client, experiments):
        key = save_view(client, experiments[MODELS], params)
    page = f"#/experiments/{experiments[MODELS]}/runs?workflowType=machine_learning"
    click.echo(f"Runs: http://127.0.0.1:{port}/{page}")
    click.echo(f"Accuracy by threshold: http://127.0.0.1:{port}/{page}&compareRunsMode=CHART&viewStateShareKey={key}")
    # One worker is enough for one person. A busy machine starts several so slowly that MLflow stops them.
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # The address is no option, since it may hold a password and all users of a machine see its commands.
    os.execve(sys.executable, command, {**os.environ, "MLFLOW_BACKEND_STORE_URI": address})


@main.command("import-embeddings")
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@click.option("--embedder", type=PATH, required=True, help="open_clip directory of the model that made the embeddings.")
@click.option(
    "--shard-digits", type=click.IntRange(min=1), help="Number of leading digits of a key that name its shard."
)
@click.option(
    "--drop-limit", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Largest share of dropped rows."
)
@click.option("--pool", type=PATH, help="Folder of the shards. It must hold every shard that the rows name.")
@reports_errors
def import_embeddings(
    source: Path, out: Path, embedder: Path, shard_digits: int | None, drop_limit: float, pool: Path | None
) -> None:
    """Import embeddings that clip-retrieval wrote.

    The command checks the embeddings in SOURCE, and writes them to OUT in the format of a study. In a study, the stage
    embed@pool does the same; see docs/bring-data.md. An interrupted import continues where it stopped.
    """
    from simgap.embed.imported import import_into

    click.echo(import_into(source, out, embedder, shard_digits, drop_limit, pool))


@main.command("contact-sheet")
@click.argument("benchmarks", type=PATH)
@click.argument("out", type=PATH)
@reports_errors
def contact_sheet(benchmarks: Path, out: Path) -> None:
    """Draw one image of each class to a PNG file.

    BENCHMARKS is the folder of the benchmarks. OUT is the PNG file.
    """
    from simgap.cli.contact_sheet import draw_contact_sheet

    draw_contact_sheet(benchmarks, out)
