"""The params file: one schema for every preset, checked whole before any stage works."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from simgap.clip.config import named_config, read_model_config
from simgap.core.errors import SimgapError
from simgap.core.executor import PartsParameters
from simgap.params.compare import CompareParameters
from simgap.params.deduplicate import DeduplicateParameters
from simgap.params.draw import DrawParameters
from simgap.params.embed import EmbedderParameters, EmbedParameters
from simgap.params.evaluate import EvaluateParameters
from simgap.params.ground_truth import GroundTruthParameters
from simgap.params.leaks import LeakParameters
from simgap.params.similarity import SimilarityParameters
from simgap.params.train import TrainParameters
from simgap.prune.rules import JOINS, MATCHES

PARAMS_FILE = Path("params.yaml")
NAME = re.compile(r"[a-z][a-z0-9_-]*")
ADDRESS = re.compile(r"[a-z][a-z0-9]*://[^\s@:?]+")
NEEDS_LICENCE = {"objectnet": "ObjectNet's licence forbids using it to tune a model"}


@dataclass(frozen=True)
class CopyParameters:
    """Data copied into the study: folders of `source`, itself relative to the repository, and the SHA-256 of them all."""

    source: str
    folders: list[str]
    sha256: str


@dataclass(frozen=True)
class ManifestParameters:
    """Shards that stay where they lie: the address above them, any of fsspec's, as s3://BUCKET/FOLDER."""

    address: str


@dataclass(frozen=True)
class PoolParameters:
    """The pool.

    Attributes:
        path: folder of its shards, or of their manifest.
        embed: what its embeddings are made from: the shards again, or a folder of embeddings to import.
        shard_digits: of imported keys, how many leading digits are the shard's number; None where none are.
    """

    path: str
    embed: str
    shard_digits: int | None


@dataclass(frozen=True)
class ReferenceParameters:
    """The reference: folder of its shards, its list of class names, and whether it joins every split's training data."""

    path: str
    classnames: str
    add_to_pool: bool


@dataclass(frozen=True)
class BenchmarksParameters:
    """The benchmarks: their folder and names, which queries rules see, and licences accepted for use in a rule."""

    path: str
    names: list[str]
    query_fraction: float
    query_seed: int
    accepted_licences: list[str]


@dataclass(frozen=True)
class ImagenetLikeParameters:
    """An imagenet-like split: the benchmarks whose queries its rule sees."""

    benchmarks: list[str]


@dataclass(frozen=True)
class SimilarityRankParameters:
    """A dissimilar-pruned or similar-pruned split: benchmarks, how they are joined, rows to keep (count or fraction)."""

    benchmarks: list[str]
    join: str
    keep: int | float


@dataclass(frozen=True)
class RandomParameters:
    """A control: rows to keep, as a count or as a fraction of the size of the split `size_of`."""

    size_of: str
    keep: int | float
    seed: int


@dataclass(frozen=True)
class MatchedParameters:
    """A control with as many rows of each `class` or `style`, see `match`, as the split `size_of` keeps."""

    size_of: str
    match: str
    seed: int


@dataclass(frozen=True)
class PruneParameters:
    """Splits by rule and name."""

    imagenet_like: dict[str, ImagenetLikeParameters]
    dissimilar: dict[str, SimilarityRankParameters]
    similar: dict[str, SimilarityRankParameters]
    random: dict[str, RandomParameters]
    matched: dict[str, MatchedParameters]

    def rules(self) -> dict[str, dict[str, Any]]:
        """Give the splits by the rules' names in the params file."""
        return {
            "imagenet-like": dict(self.imagenet_like),
            "dissimilar": dict(self.dissimilar),
            "similar": dict(self.similar),
            "random": dict(self.random),
            "matched": dict(self.matched),
        }


@dataclass(frozen=True)
class RepeatsParameters:
    """The seeds that every split is trained with."""

    seeds: list[int]


@dataclass(frozen=True)
class Params:
    """A whole params file; the comments of params.yaml say what each key does."""

    threshold: float
    draw: dict[str, DrawParameters]
    copy: dict[str, CopyParameters]
    manifest: dict[str, ManifestParameters]
    pool: PoolParameters
    reference: ReferenceParameters
    benchmarks: BenchmarksParameters
    parts: PartsParameters
    embedder: EmbedderParameters
    embed: EmbedParameters
    similarity: SimilarityParameters
    deduplicate: DeduplicateParameters
    prune: PruneParameters
    ground_truth: dict[str, GroundTruthParameters]
    leaks: LeakParameters
    train: TrainParameters
    runs: dict[str, dict[str, Any]]
    repeats: RepeatsParameters
    evaluate: EvaluateParameters
    compare: CompareParameters

    def train_parameters(self, overrides: dict[str, Any], where: str) -> TrainParameters:
        """Give `train` with the keys of one run overridden, checked."""
        values = {**{name: getattr(self.train, name) for name in self.train.__dataclass_fields__}, **overrides}
        parameters: TrainParameters = _validate(TrainParameters, values, where)
        try:
            parameters.check()
        except SimgapError as error:
            raise SimgapError(f"{where}: {error}") from None
        return parameters


for _schema in (Params, TrainParameters):
    # Nested dataclasses inherit it.
    with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))(_schema)


def _validate(schema: Any, content: Any, where: str) -> Any:
    try:
        # As JSON: there strict means that nothing is coerced, while a mapping may still become a dataclass.
        return TypeAdapter(schema).validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling says more.
        unknown = ("unexpected_keyword_argument", "extra_forbidden")
        first = min(error.errors(), key=lambda found: found["type"] not in unknown)
        place = ".".join(str(part) for part in first["loc"] if part not in ("int", "float"))
        name = f"{where}: {place.replace('imagenet_like', 'imagenet-like')}"
        if first["type"] in unknown:
            known = [key.replace("imagenet_like", "imagenet-like") for key in _known_keys(schema, first["loc"][:-1])]
            close = difflib.get_close_matches(str(first["loc"][-1]), known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; choose from {', '.join(sorted(known))}"
            raise SimgapError(f"{name} is unknown{hint}") from None
        if first["type"] in ("missing", "missing_argument"):
            raise SimgapError(f"{name} is missing") from None
        raise SimgapError(
            f"{name}: {first['input']!r} is not valid; {first['msg'][0].lower()}{first['msg'][1:]}"
        ) from None


def _known_keys(schema: Any, location: tuple[Any, ...]) -> list[str]:
    from typing import get_args, get_type_hints

    for part in location:
        schema = get_type_hints(schema)[part] if hasattr(schema, "__dataclass_fields__") else get_args(schema)[1]
    return list(getattr(schema, "__dataclass_fields__", ()))


def _check_names(params: Params, where: str) -> None:
    worlds: dict[str, dict[str, Any]] = {
        "draw": {**params.draw},
        "copy": {**params.copy},
        "manifest": {**params.manifest},
    }
    for place, names in {**worlds, "benchmarks.names": params.benchmarks.names}.items():
        for name in names:
            if not NAME.fullmatch(name) or name in ("pool", "reference"):
                raise SimgapError(f"{where}: {place}: {name!r} is no name; it should match {NAME.pattern}")
    for (first, names), (second, others) in itertools.combinations(worlds.items(), 2):
        for name in names.keys() & others.keys():
            raise SimgapError(
                f"{where}: {second}.{name}: the name is also used by {first}; both would write data/worlds/{name}"
            )
    for name, manifest in params.manifest.items():
        if not ADDRESS.fullmatch(manifest.address):
            raise SimgapError(
                f"{where}: manifest.{name}.address: {manifest.address!r} should be an address as s3://BUCKET/FOLDER, "
                "without credentials, which belong into the environment"
            )


def _check_models(params: Params, where: str) -> None:
    trained = {"train.model": params.train.model}
    if params.embedder.train is not None:
        trained["embedder.train.model"] = params.embedder.train.model
    trained |= {f"runs.{run}.model": str(keys["model"]) for run, keys in params.runs.items() if "model" in keys}
    for place, model in trained.items():
        read_model_config(model, f"{where}: {place}")
    if params.embedder.pretrained is not None:
        named_config(params.embedder.pretrained.model, f"{where}: embedder.pretrained.model")


def _check_seeds(params: Params, where: str) -> None:
    seeds = {
        **{f"draw.{name}.seed": draw.seed for name, draw in params.draw.items()},
        **{f"prune.random.{name}.seed": control.seed for name, control in params.prune.random.items()},
        **{f"prune.matched.{name}.seed": control.seed for name, control in params.prune.matched.items()},
        "benchmarks.query_seed": params.benchmarks.query_seed,
        "embedder.seed": params.embedder.seed,
        "deduplicate.seed": params.deduplicate.seed,
        "evaluate.few_shot.seed": params.evaluate.few_shot.seed,
        "compare.seed": params.compare.seed,
        "repeats.seeds": min(params.repeats.seeds, default=0),
    }
    for place, seed in seeds.items():
        if seed < 0:
            raise SimgapError(f"{where}: {place}: {seed} should not be below 0")


def _check_splits(params: Params, where: str) -> None:
    owner: dict[str, str] = {"full": "deduplicate"}
    for rule, splits in params.prune.rules().items():
        for split, parameters in splits.items():
            place = f"{where}: prune.{rule}.{split}"
            if not NAME.fullmatch(split):
                raise SimgapError(f"{place}: is no name for a split; it should match {NAME.pattern}")
            if split in owner:
                raise SimgapError(f"{place}: the name is also used by {owner[split]}; split names should be unique")
            owner[split] = f"prune.{rule}"
            benchmarks = getattr(parameters, "benchmarks", [])
            for benchmark in benchmarks:
                if benchmark not in params.benchmarks.names:
                    raise SimgapError(
                        f"{place}.benchmarks: {benchmark!r} is unknown; choose from {', '.join(params.benchmarks.names)}"
                    )
                if benchmark in NEEDS_LICENCE and benchmark not in params.benchmarks.accepted_licences:
                    raise SimgapError(
                        f"{place}.benchmarks: {benchmark} may not take part in a rule, since {NEEDS_LICENCE[benchmark]}; "
                        "list it in benchmarks.accepted_licences if yours may be used so"
                    )
            if len(set(benchmarks)) < len(benchmarks):
                raise SimgapError(f"{place}.benchmarks: {benchmarks} should name each benchmark once")
            if rule in ("imagenet-like", "dissimilar", "similar") and not benchmarks:
                raise SimgapError(f"{place}.benchmarks: is empty; name at least one benchmark")
            if rule in ("dissimilar", "similar") and parameters.join not in JOINS:
                raise SimgapError(f"{place}.join: {parameters.join!r} is unknown; choose from {', '.join(JOINS)}")
            if rule == "matched" and parameters.match not in MATCHES:
                raise SimgapError(f"{place}.match: {parameters.match!r} is unknown; choose from {', '.join(MATCHES)}")
            keep = getattr(parameters, "keep", 0)
            if keep < 0 or (isinstance(keep, float) and keep > 1):
                raise SimgapError(f"{place}.keep: {keep} should be a count (an integer) or a fraction in [0.0, 1.0]")
    controls = {*params.prune.random, *params.prune.matched}
    # Of each class as many rows as full has are the rows of full.
    for rule, not_these in (("random", controls), ("matched", controls | {"full"})):
        for split, control in params.prune.rules()[rule].items():
            if control.size_of not in set(owner) - not_these:
                choices = ", ".join(sorted(set(owner) - not_these))
                raise SimgapError(
                    f"{where}: prune.{rule}.{split}.size_of: {control.size_of!r} is unknown; choose from {choices}"
                )
    if not params.runs:
        raise SimgapError(f"{where}: runs: is empty; name a split to train")
    for run, overrides in params.runs.items():
        if run not in owner:
            raise SimgapError(f"{where}: runs.{run}: no rule makes this split; choose from {', '.join(sorted(owner))}")
        params.train_parameters(overrides, f"{where}: runs.{run}")


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice in one mapping is an error, and every key is text (JSON's rules for keys)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the key {key!r} should be text")
            if key in keys[:position]:
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the key {key!r} stands twice")
        return super().construct_mapping(node, deep)


# DVC writes and reads YAML 1.2, in which 1e-3 is a number; PyYAML's 1.1 takes it for text.
_UniqueKeys.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_params(path: Path) -> Params:
    """Read and check a params file, see `parse_params`.

    Raises:
        SimgapError: one line that names the file, the parameter, its value and what would be right.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SimgapError(f"{path}: no such file; run from the repository's root") from None
    except OSError as error:
        raise SimgapError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise SimgapError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    return parse_params(text, str(path))


def parse_params(text: str, path: str) -> Params:
    """Read and check the text of a params file, all of it.

    Args:
        path: what errors call the file.

    Raises:
        SimgapError: one line that names the file, the parameter, its value and what would be right.
    """
    try:
        content = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        raise SimgapError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise SimgapError(f"{path}: holds {content!r}; it should hold the keys of presets/toy.yaml")
    if isinstance(content.get("prune"), dict):
        # A dash cannot stand in a Python name; it does in the name of the rule.
        rules = content["prune"]
        if "imagenet-like" in rules:
            content = {
                **content,
                "prune": {
                    "imagenet_like": rules["imagenet-like"],
                    **{k: v for k, v in rules.items() if k != "imagenet-like"},
                },
            }
    params: Params = _validate(Params, content, path)
    try:
        for draw in params.draw.values():
            draw.check()
        for block in (params.parts, params.embedder, params.embed, params.similarity, params.deduplicate):
            block.check()
        for other in (params.leaks, params.train, params.evaluate, params.compare):
            other.check()
        for truth in params.ground_truth.values():
            truth.check()
    except SimgapError as error:
        raise SimgapError(f"{path}: {error}") from None
    _check_names(params, path)
    _check_seeds(params, path)
    _check_models(params, path)
    if params.pool.shard_digits is not None and params.pool.shard_digits < 1:
        raise SimgapError(f"{path}: pool.shard_digits: {params.pool.shard_digits} should be at least 1, or null")
    if not params.benchmarks.names or len(set(params.benchmarks.names)) != len(params.benchmarks.names):
        raise SimgapError(
            f"{path}: benchmarks.names: {params.benchmarks.names} should name each benchmark once, and one at least"
        )
    if params.compare.in_distribution_benchmark not in params.benchmarks.names:
        raise SimgapError(
            f"{path}: compare.in_distribution_benchmark: {params.compare.in_distribution_benchmark!r} is unknown; choose from "
            f"{', '.join(params.benchmarks.names)}"
        )
    if not 0 < params.benchmarks.query_fraction <= 1:
        raise SimgapError(f"{path}: benchmarks.query_fraction: {params.benchmarks.query_fraction} should be in (0, 1]")
    if not -2 <= params.threshold <= 2:
        raise SimgapError(f"{path}: threshold: {params.threshold} should be a difference of cosines, in [-2, 2]")
    # What a split records of it has nine digits.
    if float(f"{params.threshold:.9g}") != params.threshold:
        raise SimgapError(f"{path}: threshold: {params.threshold!r} should have nine significant digits at most")
    if not params.repeats.seeds or len(set(params.repeats.seeds)) != len(params.repeats.seeds):
        raise SimgapError(f"{path}: repeats.seeds: {params.repeats.seeds} should name each seed once, and one at least")
    if params.leaks.threshold is None and not params.ground_truth:
        raise SimgapError(
            f"{path}: leaks.threshold: is null, but ground_truth names no marks to calibrate it on; give a similarity"
        )
    _check_splits(params, path)
    return params
