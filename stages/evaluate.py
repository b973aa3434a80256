"""Evaluate a trained model on every benchmark."""

from pathlib import Path

from simgap.clip.model import load
from simgap.core.files import write_json
from simgap.data.benchmarks import load_benchmark, read_lines
from simgap.evaluate.evaluate import evaluate
from simgap.evaluate.shots import Shots
from simgap.params.schema import Params
from simgap.stage.command import stage


@stage
def main(
    params: Params, model: Path, benchmarks: Path, reference: Path, embeddings: Path, out: Path, metrics: Path
) -> None:
    chosen = [load_benchmark(benchmarks / name) for name in params.benchmarks.names]
    classnames = read_lines(Path(params.reference.classnames), "one class name a line")
    shots = None
    if params.evaluate.few_shot.shots:
        shots = Shots(params.evaluate.few_shot, reference, embeddings / "reference", classnames)
    decoders, drop_limit = params.resources.decoders, params.limits.drop_limit
    write_json(metrics, evaluate(params.evaluate, load(model), chosen, shots, classnames, decoders, drop_limit, out))


if __name__ == "__main__":
    main()
