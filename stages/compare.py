"""Compare the splits, and mirror the finished study to MLflow."""

from pathlib import Path

import click

from simgap.compare.compare import compare
from simgap.compare.metrics import flat_metrics
from simgap.compare.report import markdown_report, text_table
from simgap.compare.study import read_study
from simgap.compare.tables import write_tables
from simgap.core.files import atomic_output, read_json, write_json
from simgap.params.schema import Params
from simgap.stage.command import PATH, stage
from simgap.tracking.track import try_track


@stage
@click.option("--splits", type=PATH, required=True)
@click.option("--similarity", type=PATH, required=True)
@click.option("--profiles", type=PATH, required=True)
@click.option("--evaluations", type=PATH, required=True)
@click.option("--leaks", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--metrics", type=PATH, required=True)
def main(
    params: Params,
    splits: Path,
    similarity: Path,
    profiles: Path,
    evaluations: Path,
    leaks: Path,
    out: Path,
    metrics: Path,
) -> None:
    study = read_study(
        list(params.runs),
        params.repeats.seeds,
        params.benchmarks.names,
        params.evaluate.few_shot.shots,
        read_json(leaks)["threshold"],
        splits,
        similarity,
        profiles,
        evaluations,
    )
    comparison = compare(params.compare, study)
    with atomic_output(out) as partial:
        partial.mkdir()
        (partial / "table.txt").write_text(text_table(study, comparison), encoding="utf-8")
        (partial / "table.md").write_text(markdown_report(params.compare, study, comparison), encoding="utf-8")
        write_tables(study, comparison, partial)
    write_json(metrics, flat_metrics(study, comparison))
    try_track()


if __name__ == "__main__":
    main()
