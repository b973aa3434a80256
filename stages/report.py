"""Write the report of the study as an HTML page with figures."""

from pathlib import Path

from simgap.params.schema import Params
from simgap.report.inputs import Folders, ReportInputs
from simgap.report.page import write_report
from simgap.stage.command import stage


@stage
def main(
    params: Params,
    metrics: Path,
    tables: Path,
    galleries: Path,
    profiles: Path,
    similarity: Path,
    benchmarks: Path,
    page: Path,
    figures: Path,
) -> None:
    inputs = ReportInputs(
        Folders(metrics, tables, galleries, profiles, similarity, benchmarks),
        list(params.runs),
        list(params.prune.imagenet_like),
        params.benchmarks.names,
        params.repeats.seeds,
        list(params.ground_truth),
        params.compare.in_distribution_benchmark,
    )
    write_report(inputs, params.compare.equivalence_margin, page, figures)


if __name__ == "__main__":
    main()
