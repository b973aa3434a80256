"""Compare the splits, and log the finished study to MLflow."""

from pathlib import Path

from simgap.compare.compare import compare
from simgap.compare.metrics import flat_metrics
from simgap.compare.outcomes import read_outcomes
from simgap.compare.report import write_comparison
from simgap.core.files import atomic_output, read_json, write_json
from simgap.params.schema import Params
from simgap.stage.command import stage
from simgap.tracking.track import try_track


@stage
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
    outcomes = read_outcomes(
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
    comparison = compare(params.compare, outcomes)
    with atomic_output(out) as partial:
        partial.mkdir()
        write_comparison(params.compare, outcomes, comparison, partial)
    write_json(metrics, flat_metrics(outcomes, comparison))
    try_track()


if __name__ == "__main__":
    main()
