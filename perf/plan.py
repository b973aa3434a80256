"""Compare the predictions of `simgap plan` with a finished study.

The actual seconds come from the logs and the file times of the study. The actual bytes come from `dvc.lock`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import yaml

from perf.machine import report
from simgap.params.load import load_params
from simgap.plan.needs import START_SECONDS, Need, Planner
from simgap.plan.rates import assumed, logged, measured, stage_logs
from simgap.plan.sizes import gather
from simgap.plan.table import sources
from simgap.stage.command import reports_errors

FOLDER = click.Path(path_type=Path)
CORES = 2
# Each key consists of two names: the folder of a stage's metrics, and an instance of the stage.
Instances = dict[tuple[str, str], float]


def logged_seconds(study: Path) -> Instances:
    """Return the seconds that the logs record for each instance of embedding and training.

    The logged seconds do not include the start of the command.
    """
    return {(stage, log.name): log.seconds for stage in ("embed", "train") for log in stage_logs(study, stage)}


def seconds_between(study: Path) -> Instances:
    """Return the seconds between successive metrics files of each stage. The first instance of a stage is skipped."""
    found: Instances = {}
    for folder in sorted((study / "metrics").iterdir()):
        times = sorted((path.stat().st_mtime, path.stem) for path in folder.glob("*.json"))
        found |= {(folder.name, name): then - before for (before, _), (then, name) in pairwise(times)}
    return found


def stored_bytes(study: Path) -> Instances:
    """Return the bytes of each instance's outputs, as recorded in `dvc.lock`. Metrics files do not count."""
    lock = yaml.safe_load((study / "dvc.lock").read_text(encoding="utf-8"))
    found: Instances = {}
    for stage, entry in lock["stages"].items():
        name, _, instance = stage.partition("@")
        outs = [out for out in entry.get("outs", ()) if not out["path"].startswith("metrics/")]
        found[metrics_folder(name), instance or name] = sum(out["size"] for out in outs)
    return found


def metrics_folder(stage: str) -> str:
    """Return the name of a stage's folder in `metrics/`."""
    return "embed" if stage == "embed-benchmark" else stage


def compare(
    needs: list[Need], actual: Instances, predict: Callable[[Need], float | None]
) -> dict[str, tuple[int, float, float]]:
    """Sum the predicted and the actual values of each stage.

    Instances without a prediction or without an actual value are skipped.

    Returns:
        A tuple for each stage. It contains the number of summed instances, the sum of the predictions, and the sum of the
        actual values.
    """
    found: dict[str, tuple[int, float, float]] = {}
    for need in needs:
        was, predicted = actual.get((metrics_folder(need.stage), need.name)), predict(need)
        if was is not None and predicted is not None:
            count, predicted_sum, actual_sum = found.get(need.stage, (0, 0.0, 0.0))
            found[need.stage] = (count + 1, predicted_sum + predicted, actual_sum + was)
    return found


@click.command()
@click.argument("study", type=FOLDER)
@click.option("--rates", "files", type=FOLDER, multiple=True, help="A file that perf.X --json wrote. Repeatable.")
@click.option("--rates-of", type=FOLDER, help="Another study. The plan uses the rates from its logs.")
@click.option(
    "--from", "instances", multiple=True,
    help="Instance of STUDY, for example pool or full-0. The plan uses the rate in its log. Repeatable.",
)  # fmt: skip
@click.option("--json", "out", type=FOLDER)
@reports_errors
def main(
    study: Path, files: tuple[Path, ...], rates_of: Path | None, instances: tuple[str, ...], out: Path | None
) -> None:
    """Compare the planned seconds and bytes of STUDY with the actual values. STUDY is a repository in which a study ran."""
    params, rates = load_params(study / "params.yaml"), assumed(CORES)
    if rates_of:
        rates = rates.joined(logged(rates_of))
    if instances:
        rates = rates.joined(logged(study, instances))
    planner = Planner(params, gather(params, {}, study), rates.joined(measured(files)))
    needs = [need for need in planner.needs() if need.name not in instances]
    ways: dict[str, tuple[Instances, Callable[[Need], float | None]]] = {
        "seconds of work (logs)": (
            logged_seconds(study),
            lambda need: None if need.seconds is None else need.seconds - START_SECONDS,
        ),
        "seconds in all (file times)": (seconds_between(study), lambda need: need.seconds),
        "bytes left (dvc.lock)": (stored_bytes(study), lambda need: need.disk_bytes),
    }
    table: list[tuple[str, ...]] = [("metric", "stage", "instances", "predicted", "was", "predicted / was")]
    content: dict[str, Any] = {}
    for way, (actual, predict) in ways.items():
        content[way] = {}
        for stage, (count, predicted, was) in compare(needs, actual, predict).items():
            content[way][stage] = {"instances": count, "predicted": predicted, "was": was}
            table.append((way, stage, str(count), f"{predicted:,.1f}", f"{was:,.1f}", f"{predicted / was:.2f}"))
    report(table, content, out)
    print(*(f"rate of {work}: {source}" for work, source in sorted(sources(planner, needs))), sep="\n")


if __name__ == "__main__":
    main()
