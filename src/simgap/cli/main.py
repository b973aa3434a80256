"""Define the command line program `simgap` and its short commands."""

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

    `dvc repro` runs the study. These commands prepare the data of a study, and use its results.
    """


main.add_command(convert)
main.add_command(export)
main.add_command(plan)


@main.command()
@reports_errors
def track() -> None:
    """Log every result that MLflow does not have yet.

    A result is a trained and evaluated model or the comparison of the study.
    """
    from simgap.params.load import load_params
    from simgap.tracking.track import track as track_study

    tracked = track_study(load_params(PARAMS_FILE), METRICS, REPORT, LOCK)
    completed = f"; {tracked.completed} of the earlier runs lacked data, which were added" if tracked.completed else ""
    click.echo(f"MLflow: {tracked.logged} runs logged, {tracked.known} runs were logged before{completed}")
    for reason in tracked.unfinished:
        click.echo(f"not logged: {reason}", err=True)


@main.command()
@click.argument("preset")
@click.option("--data", type=PATH, help="Folder from which the preset copies its data.")
@reports_errors
def study(preset: str, data: Path | None) -> None:
    """Run the study of PRESET as a DVC experiment.

    The command prints the result table of the study. The workspace does not change.
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
    help="Folder for the page. An existing folder is replaced.",
)
@reports_errors
def sweep(revisions: tuple[str, ...], out: Path) -> None:
    """Write a page that shows how accuracy depends on the threshold.

    REVISIONS are commits or experiments. The default is all experiments of the current commit. Revisions may differ only in
    the threshold, the seeds and the list of trained splits. Revisions that differ from the first one in other parameters are
    left out. Without REVISIONS, the current commit takes the place of the first one. See docs/sweeps.md.
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
    click.echo(f"{out / PAGE}: thresholds {thresholds} from the revisions {', '.join(found.revisions)}")
    for reason in found.left_out:
        click.echo(f"left out: {reason}", err=True)


@main.command()
@click.argument("first")
@click.argument("second")
@click.option("--out", type=PATH, help="Folder for the tables as CSV files. An existing folder is replaced.")
@reports_errors
def overlap(first: str, second: str, out: Path | None) -> None:
    """Compare the splits and claims of two revisions.

    The command prints how many rows the splits share. It also prints the result of each claim in both revisions. FIRST and
    SECOND are experiments or commits. HEAD means the current commit. See docs/sweeps.md.
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
    """Serve the MLflow UI with the runs of the study at http://127.0.0.1."""
    from simgap.params.load import load_params
    from simgap.tracking.store import MODELS, open_store, store_address, without_password
    from simgap.tracking.view import save_view

    address = store_address()
    if address.startswith(("http:", "https:")):
        raise SimgapError(
            f"MLFLOW_TRACKING_URI: the runs are on a server; open {without_password(address)} in a browser"
        )
    params = load_params(PARAMS_FILE)
    # `open_store` creates a missing store under a lock. If the UI created the store, it could collide with a stage that
    # logs at the same time.
    with open_store() as (client, experiments):
        key = save_view(client, experiments[MODELS], params)
    page = f"#/experiments/{experiments[MODELS]}/runs?workflowType=machine_learning"
    click.echo(f"Runs: http://127.0.0.1:{port}/{page}")
    click.echo(f"Accuracy by threshold: http://127.0.0.1:{port}/{page}&compareRunsMode=CHART&viewStateShareKey={key}")
    # One worker is enough for one person. On a busy machine, several workers may start too slowly, and MLflow stops
    # them.
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # The address is passed in the environment, because it may contain a password. All users of a machine can see the
    # command lines of its processes.
    os.execve(sys.executable, command, {**os.environ, "MLFLOW_BACKEND_STORE_URI": address})


@main.command("import-embeddings")
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--embedder", type=PATH, required=True, help="open_clip folder of the model that computed the embeddings."
)
@click.option(
    "--shard-digits", type=click.IntRange(min=1), help="How many leading digits of a key are the number of its shard."
)
@click.option(
    "--drop-limit",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Largest share of rows that may be dropped.",
)
@click.option(
    "--pool", type=PATH, help="Folder of the shards. If given, every shard that a row names must exist there."
)
@reports_errors
def import_embeddings(
    source: Path, out: Path, embedder: Path, shard_digits: int | None, drop_limit: float, pool: Path | None
) -> None:
    """Import embeddings that clip-retrieval wrote.

    The command checks the embeddings in SOURCE, and writes them to OUT in the format of a study. In a study, the stage
    embed@pool imports embeddings in the same way. See docs/bring-data.md. If an import was interrupted, the same command
    continues it.
    """
    from simgap.embed.imported import import_into

    click.echo(import_into(source, out, embedder, shard_digits, drop_limit, pool))


@main.command("contact-sheet")
@click.argument("benchmarks", type=PATH)
@click.argument("out", type=PATH)
@reports_errors
def contact_sheet(benchmarks: Path, out: Path) -> None:
    """Write a PNG file with one image of each class of each benchmark.

    BENCHMARKS is a folder that contains a folder for each benchmark. OUT is the PNG file.
    """
    from simgap.cli.contact_sheet import draw_contact_sheet

    draw_contact_sheet(benchmarks, out)
