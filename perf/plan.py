"""How well `simgap plan` predicts a study that is finished: seconds from its logs and its files' times, bytes from dvc.lock."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import yaml

from perf.machine import report
from simgap.params.load import load_params
from simgap.plan.inputs import Given, gather
from simgap.plan.needs import Need, Planner
from simgap.plan.rates import assumed, logged, measured, stage_logs
from simgap.stage.command import reports_errors

Instances = dict[tuple[str, str], float]


def logged_seconds(study: Path) -> Instances:
    """Give the seconds that stages of embedding and training logged: of their work, without starting."""
    return {(stage, log.name): log.seconds for stage in ("embed", "train") for log in stage_logs(study, stage)}


def seconds_between(study: Path) -> Instances:
    """Give the seconds from one metrics file of a stage to the next: of whole stages, the first of each left out."""
    found: Instances = {}
    for folder in sorted((study / "metrics").iterdir()):
        times = sorted((path.stat().st_mtime, path.stem) for path in folder.glob("*.json"))
        found |= {(folder.name, name): then - before for (before, _), (then, name) in pairwise(times)}
    return found


def stored_bytes(study: Path) -> Instances:
    """Give the bytes of each stage's outputs but metrics, as `dvc.lock` has them."""
    lock = yaml.safe_load((study / "dvc.lock").read_text(encoding="utf-8"))
    found: Instances = {}
    for stage, entry in lock["stages"].items():
        name, _, instance = stage.partition("@")
        outs = [out for out in entry.get("outs", ()) if not out["path"].startswith("metrics/")]
        found[metrics_folder(name), instance or {"deduplicate": "full"}.get(name, name)] = sum(o["size"] for o in outs)
    return found


def metrics_folder(stage: str) -> str:
    """Give the name under which `metrics/` has a stage."""
    if stage == "ground-truth":
        return stage
    return {"deduplicate": "prune", "embed-benchmark": "embed"}.get(stage, stage.partition("-")[0])


def compared(needs: list[Need], actual: Instances, predict: Any) -> dict[str, tuple[int, float, float]]:
    """Give for each stage how many instances both know, and what was predicted and what was of them, in all."""
    found: dict[str, tuple[int, float, float]] = {}
    for need in needs:
        was, predicted = actual.get((metrics_folder(need.stage), need.name)), predict(need)
        if was is not None and predicted is not None:
            count, of_plan, of_study = found.get(need.stage, (0, 0.0, 0.0))
            found[need.stage] = (count + 1, of_plan + predicted, of_study + was)
    return found


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--rates", "files", type=click.Path(path_type=Path), multiple=True, help="As of `simgap plan`.")
@click.option("--rates-of", type=click.Path(path_type=Path), help="Another study, whose logs have rates.")
@click.option(
    "--from", "instances", multiple=True,
    help="An instance of STUDY, as pool or full-0, whose log has a rate; it is not compared. Several may be given.",
)  # fmt: skip
@click.option("--json", "out", type=click.Path(path_type=Path))
@reports_errors
def main(
    study: Path, files: tuple[Path, ...], rates_of: Path | None, instances: tuple[str, ...], out: Path | None
) -> None:
    """Compare a plan of STUDY, a repository in which it ran, with what it took: ratios of predicted to actual."""
    params = load_params(study / "params.yaml")
    rates = assumed(2).joined(logged(rates_of)) if rates_of else assumed(2)
    if instances:
        rates = rates.joined(logged(study, instances))
    planner = Planner(params, gather(params, Given(), study), rates.joined(measured(files)))
    needs = [need for need in planner.needs() if need.name not in instances]
    ways: dict[str, tuple[Instances, Any]] = {
        "seconds of work (logs)": (
            logged_seconds(study),
            lambda need: None if need.seconds is None else need.seconds - need.alone,
        ),
        "seconds in all (file times)": (seconds_between(study), lambda need: need.seconds),
        "bytes left (dvc.lock)": (stored_bytes(study), lambda need: need.disk_bytes or None),
    }
    table: list[tuple[str, ...]] = [("figure", "stage", "instances", "predicted", "was", "predicted / was")]
    content: dict[str, Any] = {}
    for way, (actual, predict) in ways.items():
        content[way] = {}
        for stage, (count, predicted, was) in compared(needs, actual, predict).items():
            content[way][stage] = {"instances": count, "predicted": predicted, "was": was}
            table.append((way, stage, str(count), f"{predicted:,.1f}", f"{was:,.1f}", f"{predicted / was:.2f}"))
    report(table, content, out)
    print(*(f"rate of {work}: {source}" for work, sources in planner.sources.items() for source in sources), sep="\n")


if __name__ == "__main__":
    main()
