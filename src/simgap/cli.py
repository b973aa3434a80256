"""What is done to a study outside its graph."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from simgap.data.convert.commands import convert
from simgap.plan.commands import plan
from simgap.stage import PARAMS_FILE, PATH, reports_errors

METRICS = Path("metrics")


@click.group()
def main() -> None:
    """How much of a CLIP model's benchmark accuracy is owed to training images that resemble the test images?"""


main.add_command(convert)
main.add_command(plan)


@main.command()
@reports_errors
def track() -> None:
    """Log the finished study to MLflow, what it lacks of it."""
    from simgap.params import load_params
    from simgap.tracking.track import track as track_study

    logged, known, unfinished = track_study(load_params(PARAMS_FILE), METRICS)
    click.echo(f"MLflow: {logged} runs logged, {known} were there")
    for reason in unfinished:
        click.echo(f"not logged: {reason}", err=True)


@main.command()
@click.argument("preset")
@click.option("--data", type=PATH, help="Folder of the data that the preset copies.")
@reports_errors
def study(preset: str, data: Path | None) -> None:
    """Run the study of PRESET as a DVC experiment of its own, and show its table; the workspace stays as it is."""
    from simgap.study import run_study

    click.echo(run_study(preset, data))


@main.command()
@click.option("--port", type=int, default=5000, show_default=True)
@reports_errors
def ui(port: int) -> None:
    """Open the MLflow UI on the study's runs, on 127.0.0.1."""
    from simgap.tracking.track import database

    address = f"sqlite:///{database()}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        address,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    os.execv(sys.executable, command)


@main.command("contact-sheet")
@click.argument("benchmarks", type=PATH)
@click.argument("out", type=PATH)
@reports_errors
def contact_sheet(benchmarks: Path, out: Path) -> None:
    """Draw one image of every class of every benchmark in BENCHMARKS into the PNG file OUT."""
    from simgap.data.contact_sheet import draw_contact_sheet

    draw_contact_sheet(benchmarks, out)


if __name__ == "__main__":
    main()
