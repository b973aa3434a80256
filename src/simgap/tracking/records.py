"""Read the files of a study into records. There is one record for each trained model and one for the study."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simgap.core.errors import SimgapError
from simgap.core.files import read_json
from simgap.params.schema import Params
from simgap.stage.rates import read_rates
from simgap.store.study import threshold_of
from simgap.tracking.provenance import Lock, inputs
from simgap.tracking.store import MODELS, STUDIES
from simgap.tracking.view import COLOUR_TAG, colours
from simgap.train.overrides import train_parameters

# A run logs these blocks of the params file, because the results of a model may depend on them. Other code adds
# `train`, `threshold` and the rule of the split, because their values differ between models.
BLOCKS = ("draw", "pool", "reference", "benchmarks", "embedder", "embed", "similarity", "deduplicate", "evaluate")


@dataclass(frozen=True)
class Record:
    """The content of one MLflow run.

    Attributes:
        experiment: Name of the MLflow experiment that contains the run. An MLflow experiment is a list of runs.
        identity: Hash of the result. Records with equal identities share one run.
        name: Name of the run.
        parameters: Value of each parameter as text, by name.
        tags: Value of each tag by name.
        metrics: Value of each metric by name. The units are those of the files in `metrics/`.
        curves: List of pairs (step, value) for each metric with several steps, by name.
        rates: Speeds by name. A speed is logged only if the run does not have it yet, because speeds differ between
            repetitions.
        artifacts: Content of each file by name.
        key: Pair (split, seed) of a model, with which a control finds the run. None for a study.
        controls: Value of `key` in the run for which this run is a control. None if this run is not a control.
    """

    experiment: str
    identity: str
    name: str
    parameters: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    key: tuple[str, int] | None = None
    controls: tuple[str, int] | None = None


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _numbers(content: dict[str, Any], prefix: str = "") -> dict[str, float]:
    return {
        f"{prefix}{key}": float(value)
        for key, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _curves(content: dict[str, Any], prefix: str) -> dict[str, list[tuple[int, float]]]:
    curves = {key: value for key, value in content.items() if isinstance(value, list)}
    return {f"{prefix}{key}": [(int(step), float(value)) for step, value in curve] for key, curve in curves.items()}


def flatten(content: dict[str, Any], prefix: str) -> dict[str, str]:
    """Convert a nested block of the params file to a flat mapping.

    Args:
        content: The block.
        prefix: Text before each name.

    Returns:
        Values as text, by name. A name is the nested keys with dots between them, as in DVC. A list becomes a text with
        commas between the items.
    """
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            items = value if isinstance(value, list) else [value]
            flat[f"{prefix}{key}"] = ", ".join(item if isinstance(item, str) else json.dumps(item) for item in items)
    return flat


@dataclass(frozen=True)
class _Model:
    """The content of the files of one trained model.

    Attributes:
        split: Name of the split.
        seed: Seed of the training.
        prune: Metrics of the split.
        train: Metrics of the training.
        evaluate: Metrics of the evaluation.
        profile: Metrics of the similarity profile of the split.
        threshold: Threshold on which the split depends. None if it depends on no threshold.
        output: Path and hashes of the model in dvc.lock.
        embedder: Path and hashes of the embedder in dvc.lock.
        inputs: Hash of each file and folder that training or evaluation read, by its path.
    """

    split: str
    seed: int
    prune: dict[str, Any]
    train: dict[str, Any]
    evaluate: dict[str, Any]
    profile: dict[str, Any]
    threshold: float | None
    output: dict[str, Any]
    embedder: dict[str, Any]
    inputs: dict[str, str]

    def if_threshold(self) -> dict[str, str]:
        """Return the threshold as text under the name `threshold`, or nothing if the split depends on no threshold."""
        return {} if self.threshold is None else {"threshold": json.dumps(self.threshold)}


def _read_model(metrics: Path, lock: Lock, split: str, seed: int) -> _Model:
    """Read the metrics of a model and the entries of the model in dvc.lock.

    Raises:
        SimgapError: A file is missing, or a file does not belong to this model.
    """
    train, evaluate = (metrics / stage / f"{split}-{seed}.json" for stage in ("train", "evaluate"))
    model = _Model(
        split=split,
        seed=seed,
        prune=read_json(metrics / "prune" / f"{split}.json"),
        train=read_json(train),
        evaluate=read_json(evaluate),
        profile=read_json(metrics / "profile" / f"{split}.json"),
        threshold=threshold_of(split, lambda name: read_json(metrics / "prune" / f"{name}.json")),
        output=lock.model_of(train),
        embedder=lock.model_of(metrics / "embedder" / "embedder.json"),
        inputs=inputs(lock.stage_of(train), lock.stage_of(evaluate)),
    )
    if model.output["md5"] not in inputs(lock.stage_of(evaluate)).values():
        raise SimgapError(f"{evaluate}: belongs to another model than {model.output['path']}; run `dvc repro`")
    return model


def _identity(params: Params, model: _Model) -> str:
    """Return a hash that identifies the results of a model. Equal results have equal hashes."""
    what = {
        "split": [model.split, model.prune["parameters"], model.threshold],
        "model": model.output["md5"],
        # Two records with one model may have different embedders. Their similarity profiles then differ.
        "embedder": model.embedder["md5"],
        "evaluate": asdict(params.evaluate),
        "benchmarks": params.benchmarks.names,
        "seed": model.seed,
    }
    return _hash(what)


def _model_parameters(params: Params, model: _Model) -> dict[str, str]:
    # Every run logs a threshold. Without a threshold, MLflow's charts would show the run at an arbitrary place on the
    # axis.
    parameters = {"split": model.split, "seed": str(model.seed), "threshold": json.dumps(params.threshold)}
    parameters |= model.if_threshold()
    content, rule = asdict(params), model.prune["rule"]
    parameters |= flatten({block: content[block] for block in BLOCKS}, "")
    train = train_parameters(params, model.split)
    own = params.prune.rules().get(rule, {}).get(model.split)
    parameters |= flatten(asdict(train), "train.")
    return parameters | (flatten(asdict(own), f"prune.{rule}.{model.split}.") if own else {})


def _model_tags(params: Params, model: _Model) -> dict[str, str]:
    controls = model.prune["controls"]
    return {
        "split": model.split,
        "seed": str(model.seed),
        **model.if_threshold(),
        "rule": model.prune["rule"],
        "benchmarks": ", ".join(model.prune["benchmarks"]) or "none",
        **({"controls": controls} if controls else {}),
        COLOUR_TAG: colours(params)[model.split],
        "model.path": model.output["path"],
        "model.md5": model.output["md5"],
        "embedder.md5": model.embedder["md5"],
        **{f"input/{path}": md5 for path, md5 in model.inputs.items() if path != model.output["path"]},
    }


def _model_record(params: Params, metrics: Path, lock: Lock, split: str, seed: int) -> Record:
    """Return the record of a trained model.

    Raises:
        SimgapError: A file is missing, or a file does not belong to this model.
    """
    model = _read_model(metrics, lock, split, seed)
    controls = model.prune["controls"]
    threshold = [f"{key}={value}" for key, value in model.if_threshold().items()]
    return Record(
        experiment=MODELS,
        identity=_identity(params, model),
        name=" ".join([split, *threshold, f"seed={seed}"]),
        parameters=_model_parameters(params, model),
        tags=_model_tags(params, model),
        metrics={
            **_numbers(model.evaluate),
            **_numbers(model.prune, "prune/"),
            **_numbers(model.profile, "profile/"),
            **_numbers(model.train, "train/"),
        },
        curves=_curves(model.train, "train/"),
        rates=_numbers(read_rates(metrics / "train" / f"{split}-{seed}.json"), "train/"),
        artifacts={
            "split.json": (metrics / "prune" / f"{split}.json").read_bytes(),
            # MLflow does not store the weights, because DVC does. This artifact has the path and the hash that a reader
            # needs to find the weights in DVC.
            "model.json": (json.dumps(model.output, indent=1, sort_keys=True) + "\n").encode(),
        },
        key=(split, seed),
        controls=(controls, seed) if controls else None,
    )


def _figures(metrics: Path, report: Path, lock: Lock) -> dict[str, bytes]:
    """Return the content of each figure of the report, by the name of the file.

    The result is empty if the report does not show the comparison that is in the metrics.
    """
    folder = report / "figures"
    try:
        compared = lock.stage_of(metrics / "compare" / "compare.json")
    except SimgapError:
        return {}
    read = inputs(lock.maker(folder) or {})
    if not any(read.get(out["path"]) == out["md5"] for out in compared["outs"]):
        return {}
    return {f"figures/{file.name}": file.read_bytes() for file in sorted(folder.glob("*.png"))}


def _study_record(params: Params, metrics: Path, report: Path, lock: Lock | None) -> Record:
    """Return the record of the study. It has all metrics that do not belong to a single model.

    Raises:
        SimgapError: A metrics file is missing.
    """
    values = _numbers(read_json(metrics / "compare" / "compare.json"), "compare/")
    names = params.benchmarks.names
    instances = {"draw": list(params.draw), "embed": ["pool", "reference", *names], "similarity": names}
    instances["ground-truth"] = list(params.ground_truth)
    rates: dict[str, float] = {}
    for stage, instance_names in instances.items():
        for name in instance_names:
            path = metrics / stage / f"{name}.json"
            values |= _numbers(read_json(path), f"{stage}/{name}/")
            rates |= _numbers(read_rates(path), f"{stage}/{name}/")
    parameters = {
        "threshold": json.dumps(params.threshold),
        "runs": ", ".join(params.runs),
        "repeats.seeds": ", ".join(map(str, params.repeats.seeds)),
        "benchmarks.names": ", ".join(names),
        "pool.path": params.pool.path,
    }
    return Record(
        experiment=STUDIES,
        identity=_hash([parameters, values]),
        name=f"study threshold={params.threshold} seeds={parameters['repeats.seeds']}",
        parameters=parameters,
        tags={"threshold": parameters["threshold"]},
        metrics=values,
        rates=rates,
        artifacts=_figures(metrics, report, lock) if lock else {},
    )


def read_records(params: Params, metrics: Path, report: Path, lock_file: Path) -> tuple[list[Record], list[str]]:
    """Read the files of a study into records.

    Args:
        params: The params file.
        metrics: Folder of the metrics of the study.
        report: Folder of the report of the study.
        lock_file: The file dvc.lock of the study.

    Returns:
        The records, in which controls come after all other records. Then the reason for each result that cannot be
        logged yet.
    """
    found: list[Record] = []
    unfinished: list[str] = []
    lock: Lock | None = None
    try:
        lock = Lock(lock_file)
    except SimgapError as error:
        unfinished.append(str(error))
    makers = [functools.partial(_study_record, params, metrics, report, lock)]
    if lock:
        makers += [
            functools.partial(_model_record, params, metrics, lock, split, seed)
            for split in params.runs
            for seed in params.repeats.seeds
        ]
    for maker in makers:
        try:
            found.append(maker())
        except SimgapError as error:
            unfinished.append(str(error))
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
            unfinished.append(f"{metrics}: a metrics file is incomplete ({error!r}); run `dvc repro`")
    return sorted(found, key=lambda record: record.controls is not None), unfinished
