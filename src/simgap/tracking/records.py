"""What a study says to MLflow: records of its trained models and of the study as a whole, read from files alone."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from simgap.core.errors import SimgapError
from simgap.core.files import read_json
from simgap.params.load import train_parameters
from simgap.params.schema import Params
from simgap.stage.rates import read_rates
from simgap.tracking.view import COLOUR_TAG, colours

MODELS = "simgap"
STUDIES = "simgap studies"
# Of the params file what a model's results may depend on; its own split, `train` and `threshold` come by other ways.
BLOCKS = ("draw", "pool", "reference", "benchmarks", "embedder", "embed", "similarity", "deduplicate", "evaluate")
CODE = ("code/",)


@dataclass(frozen=True)
class Record:
    """One MLflow run.

    Attributes:
        experiment: MLflow's word for the list in which the run stands.
        identity: a hash; records of one identity are one run, wherever and however often they are logged.
        metrics: by name, in the units of metrics/.
        curves: by name, as [step, value] pairs.
        rates: measured where the work was done, so of no two runs the same; logged where the run has none.
        artifacts: file contents by name.
        key: what a control names, `split, seed`, to find the run that it controls; None in studies.
        controls: the key of the run that this one controls, or None.
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
    """Flatten a block of the params file: names as DVC gives them, joined by dots; values as YAML writes them."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            items = value if isinstance(value, list) else [value]
            flat[f"{prefix}{key}"] = ", ".join(item if isinstance(item, str) else json.dumps(item) for item in items)
    return flat


class Lock:
    """dvc.lock: which stage made a file, from what."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            SimgapError: there is none, or it is not DVC's.
        """
        self.path = path
        try:
            # The C loader takes a twentieth of the time.
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            stages = yaml.load(path.read_text(encoding="utf-8"), loader)["stages"]
            self._stages: dict[str, dict[str, Any]] = {
                out["path"]: stage for stage in stages.values() for out in stage.get("outs", [])
            }
        except FileNotFoundError:
            raise SimgapError(f"{path}: no such file; `dvc repro` writes it") from None
        except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise SimgapError(f"{path}: is not DVC's lock file ({' '.join(repr(error).split())})") from None

    def maker(self, output: Path) -> dict[str, Any] | None:
        """Give the entry of the stage that made an output; None where none did."""
        return self._stages.get(output.as_posix())

    def model_of(self, metrics: Path) -> dict[str, Any]:
        """Give the model that the stage which wrote a metrics file made beside it: its path and hashes.

        Raises:
            SimgapError: see `stage_of`.
        """
        outs = self.stage_of(metrics)["outs"]
        model: dict[str, Any] = next(out for out in outs if out["path"] != metrics.as_posix())
        return model

    def stage_of(self, metrics: Path) -> dict[str, Any]:
        """Give the entry of the stage that wrote a metrics file.

        Raises:
            SimgapError: no stage did, or it wrote another content.
        """
        stage = self.maker(metrics)
        if stage is None:
            raise SimgapError(f"{metrics}: {self.path} names no stage that wrote it; run `dvc repro`")
        written = next(out["md5"] for out in stage["outs"] if out["path"] == metrics.as_posix())
        if hashlib.md5(metrics.read_bytes(), usedforsecurity=False).hexdigest() != written:
            raise SimgapError(f"{metrics}: is not as {self.path} says; run `dvc repro`")
        return stage


def _inputs(*stages: dict[str, Any]) -> dict[str, str]:
    """Give DVC's hashes of what stages read, but for their code, which the git commit names."""
    deps = [dep for stage in stages for dep in stage.get("deps", []) if not dep["path"].startswith(CODE)]
    return {dep["path"]: dep["md5"] for dep in deps if "md5" in dep}


def threshold_of(split: str, read: Callable[[str], dict[str, Any]]) -> float | None:
    """Give the threshold that a split depends on: its own, or that of the split whose size, or a share of it, it has.

    Args:
        read: gives the metrics of a split's rule.
    """
    prune = read(split)
    parameters = prune["parameters"]
    if prune["threshold"] is not None or "size_of" not in parameters or isinstance(parameters.get("keep"), int):
        threshold: float | None = prune["threshold"]
        return threshold
    return threshold_of(parameters["size_of"], read)


def _model_record(params: Params, metrics: Path, lock: Lock, split: str, seed: int) -> Record:
    name = f"{split}-{seed}"
    prune = read_json(metrics / "prune" / f"{split}.json")
    train = read_json(metrics / "train" / f"{name}.json")
    evaluate = read_json(metrics / "evaluate" / f"{name}.json")
    trained = lock.stage_of(metrics / "train" / f"{name}.json")
    evaluated = lock.stage_of(metrics / "evaluate" / f"{name}.json")
    model = lock.model_of(metrics / "train" / f"{name}.json")
    embedder = lock.model_of(metrics / "embedder" / "embedder.json")
    if model["md5"] not in _inputs(evaluated).values():
        raise SimgapError(f"{metrics}/evaluate/{name}.json: is of another model than {model['path']}; run `dvc repro`")
    threshold = threshold_of(split, lambda name: read_json(metrics / "prune" / f"{name}.json"))
    of_threshold = {} if threshold is None else {"threshold": json.dumps(threshold)}
    rules = params.prune.rules().get(prune["rule"], {})
    # MLflow's charts would put a run without a threshold somewhere on its axis.
    parameters = {"split": split, "seed": str(seed), "threshold": json.dumps(params.threshold), **of_threshold}
    for block in BLOCKS:
        parameters |= flatten({block: asdict(params)[block]}, "")
    parameters |= flatten(asdict(train_parameters(params, split)), "train.")
    parameters |= flatten(asdict(rules[split]) if split in rules else {}, f"prune.{prune['rule']}.{split}.")
    controls = prune["controls"]
    what = {
        "split": [split, prune["parameters"], threshold],
        "model": model["md5"],
        # By another embedder the same model has other profiles.
        "embedder": embedder["md5"],
        "evaluate": asdict(params.evaluate),
        "benchmarks": params.benchmarks.names,
        "seed": seed,
    }
    return Record(
        experiment=MODELS,
        identity=_hash(what),
        name=" ".join([split, *(f"{key}={value}" for key, value in of_threshold.items()), f"seed={seed}"]),
        parameters=parameters,
        tags={
            "split": split,
            "seed": str(seed),
            **of_threshold,
            "rule": prune["rule"],
            "benchmarks": ", ".join(prune["benchmarks"]) or "none",
            **({"controls": controls} if controls else {}),
            COLOUR_TAG: colours(params)[split],
            "model.path": model["path"],
            "model.md5": model["md5"],
            "embedder.md5": embedder["md5"],
            **{
                f"input/{path}": digest for path, digest in _inputs(trained, evaluated).items() if path != model["path"]
            },
        },
        metrics={
            **_numbers(evaluate),
            **_numbers(prune, "prune/"),
            **_numbers(read_json(metrics / "profile" / f"{split}.json"), "profile/"),
            **_numbers(train, "train/"),
        },
        curves=_curves(train, "train/"),
        rates=_numbers(read_rates(metrics / "train" / f"{name}.json"), "train/"),
        artifacts={
            "split.json": (metrics / "prune" / f"{split}.json").read_bytes(),
            # By reference: where it is in the repository, and its hash in DVC's cache and remotes.
            "model.json": (json.dumps(model, indent=1, sort_keys=True) + "\n").encode(),
        },
        key=(split, seed),
        controls=(controls, seed) if controls else None,
    )


def _figures(metrics: Path, report: Path, lock: Lock) -> dict[str, bytes]:
    """Give the report's figures, if it was made of the comparison in the metrics: others are of an earlier study."""
    folder = report / "figures"
    try:
        compared = lock.stage_of(metrics / "compare" / "compare.json")
    except SimgapError:
        return {}
    made_of = _inputs(lock.maker(folder) or {})
    if not any(made_of.get(out["path"]) == out["md5"] for out in compared["outs"]):
        return {}
    return {f"figures/{file.name}": file.read_bytes() for file in sorted(folder.glob("*.png"))}


def _study_record(params: Params, metrics: Path, report: Path, lock: Lock | None) -> Record:
    parts = _numbers(read_json(metrics / "compare" / "compare.json"), "compare/")
    names = params.benchmarks.names
    instances = {"draw": list(params.draw), "embed": ["pool", "reference", *names], "similarity": names}
    instances["ground-truth"] = list(params.ground_truth)
    rates: dict[str, float] = {}
    for stage, of_stage in instances.items():
        for name in of_stage:
            path = metrics / stage / f"{name}.json"
            parts |= _numbers(read_json(path), f"{stage}/{name}/")
            rates |= _numbers(read_rates(path), f"{stage}/{name}/")
    seeds = ", ".join(map(str, params.repeats.seeds))
    parameters = {
        "threshold": json.dumps(params.threshold),
        "runs": ", ".join(params.runs),
        "repeats.seeds": seeds,
        "benchmarks.names": ", ".join(names),
        "pool.path": params.pool.path,
    }
    name = f"study threshold={params.threshold} seeds={seeds}"
    tags = {"threshold": parameters["threshold"]}
    figures = _figures(metrics, report, lock) if lock else {}
    return Record(STUDIES, _hash([parameters, parts]), name, parameters, tags, parts, rates=rates, artifacts=figures)


def records(params: Params, metrics: Path, report: Path, lock_file: Path) -> tuple[list[Record], list[str]]:
    """Give a study's records, controls after what they control, and in words why what is unfinished says nothing."""
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
            unfinished.append(f"{metrics}: incomplete ({error!r})")
    return sorted(found, key=lambda record: record.controls is not None), unfinished
