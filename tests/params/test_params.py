from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import REPOSITORY
from dvc.utils.serialize import parse_yaml

from simgap.core.errors import SimgapError
from simgap.params.json_schema import json_schema
from simgap.params.load import load_params, parse_params
from simgap.train.overrides import train_parameters

PRESETS = sorted((REPOSITORY / "presets").glob("*.yaml"))


@pytest.mark.parametrize("preset", [REPOSITORY / "params.yaml", *PRESETS], ids=lambda path: path.name)
def test_every_preset_follows_the_schema(preset: Path) -> None:
    load_params(preset)


def test_the_default_study_is_the_toy_preset() -> None:
    assert (REPOSITORY / "params.yaml").read_text() == (REPOSITORY / "presets" / "toy.yaml").read_text()


@pytest.mark.parametrize("preset", [REPOSITORY / "params.yaml", *PRESETS], ids=lambda path: path.name)
def test_a_trained_split_has_a_trained_control_of_the_same_size(preset: Path) -> None:
    params = load_params(preset)
    prune = params.prune
    ranked = {**prune.dissimilar, **prune.similar}
    sized = [control.size_of for name, control in prune.random.items() if name in params.runs and control.keep == 1.0]
    counts = [ranked[name].keep for name in sized if name in ranked]
    without = [run for run in params.runs if run in prune.imagenet_like and run not in sized]
    without += [run for run in params.runs if run in ranked and ranked[run].keep not in counts]
    assert without == []


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], tuple[str, ...]]] = {
    "threshold": (lambda c: c.update(threshold="abc"), ("threshold", "'abc'", "number")),
    "bool threshold": (lambda c: c.update(threshold=True), ("threshold", "True")),
    "nan threshold": (lambda c: c.update(threshold=float("nan")), ("threshold", "nan")),
    "threshold of too many digits": (lambda c: c.update(threshold=0.01234567891), ("threshold", "nine significant")),
    "engine": (lambda c: c["resources"].update(engine="cuda"), ("resources.engine", "'cuda'", "gpu")),
    "no digits of a shard": (lambda c: c["pool"].update(shard_digits=0), ("pool.shard_digits", "0", "at least 1")),
    "executor": (lambda c: c["resources"].update(executor="dask"), ("resources.executor", "'dask'", "local, ray")),
    "address of the executor": (
        lambda c: c["resources"].update(ray_address="head"),
        ("resources.ray_address", "'head'", "HOST:PORT"),
    ),
    "limit": (lambda c: c["limits"].update(drop_limit=1.5), ("limits.drop_limit", "1.5", "at most 1")),
    "workers": (lambda c: c["resources"]["train"].update(workers=-1), ("resources.train.workers", "-1", "at least 0")),
    "a dataset in two blocks": (
        lambda c: c.update(manifest={"toy": {"address": "s3://b/x"}}),
        ("manifest.toy", "draw", "data/worlds/toy"),
    ),
    "no address": (
        lambda c: c.update(manifest={"laion": {"address": "/data/pool"}}),
        ("manifest.laion.address", "'/data/pool'", "s3://"),
    ),
    "credentials in an address": (
        lambda c: c.update(manifest={"laion": {"address": "s3://key:secret@b/pool"}}),
        ("manifest.laion.address", "without credentials"),
    ),
    "misspelt": (lambda c: c.update(treshold=0.1), ("treshold", "'threshold'")),
    "misspelt below": (lambda c: c["train"].update(bach_size=1), ("train.bach_size", "'batch_size'")),
    "text for a number": (lambda c: c["train"].update(batch_size="64"), ("train.batch_size", "'64'")),
    "out of range": (lambda c: c["train"].update(batch_size=0), ("train.batch_size", "0", "at least 1")),
    "nothing to calibrate on": (lambda c: c.update(ground_truth={}), ("leaks.threshold", "null", "ground_truth")),
    "leaks out of range": (lambda c: c["leaks"].update(threshold=2.0), ("leaks.threshold", "2.0")),
    "unknown rule": (lambda c: c["prune"].update(imagenet_lik={}), ("prune.imagenet_lik",)),
    "misspelt in a split": (
        lambda c: c["prune"]["imagenet-like"].update(x={"benchmark": ["val"]}),
        ("prune.imagenet-like.x.benchmark", "'benchmarks'"),
    ),
    "unknown benchmark": (
        lambda c: c["prune"]["imagenet-like"].update(x={"benchmarks": ["vla"]}),
        ("prune.imagenet-like.x.benchmarks", "'vla'", "val, sketch"),
    ),
    "no benchmark": (lambda c: c["prune"]["imagenet-like"].update(x={"benchmarks": []}), ("x.benchmarks", "empty")),
    "name in two rules": (
        lambda c: c["prune"]["random"].update(combined={"size_of": "full", "keep": 0.5, "seed": 0}),
        ("prune.random.combined", "prune.imagenet-like"),
    ),
    "name in no rule": (lambda c: c["runs"].update(nosuch={}), ("runs.nosuch", "combined")),
    "name of full": (
        lambda c: c["prune"]["random"].update(full={"size_of": "combined", "keep": 0.5, "seed": 0}),
        ("prune.random.full",),
    ),
    "bad split name": (lambda c: c["prune"]["imagenet-like"].update({"100m": {"benchmarks": ["val"]}}), ("100m",)),
    "keep above 1": (
        lambda c: c["prune"]["dissimilar"]["nearest-quarter"].update(keep=1.5),
        ("prune.dissimilar.nearest-quarter.keep", "1.5"),
    ),
    "keep that is neither count nor fraction": (
        lambda c: c["prune"]["random"]["nearest-quarter-control"].update(keep="all"),
        ("prune.random.nearest-quarter-control.keep is 'all'; it must be",),
    ),
    "a split of a type's name": (
        lambda c: c["prune"]["random"].update(int={"size_of": "full", "keep": -1, "seed": 0}),
        ("prune.random.int.keep is -1; it must be a count",),
    ),
    "unknown key of a split of a type's name": (
        lambda c: c["prune"]["random"].update(float={"sizeof": "full", "keep": 1, "seed": 0}),
        ("prune.random.float.sizeof is unknown; did you mean 'size_of'",),
    ),
    "key with brackets": (lambda c: c.update({"zzz[a]": 1}), ("zzz[a] is unknown",)),
    "key with brackets below": (lambda c: c["embed"].update({"a[b]": 1}), ("embed.a[b] is unknown",)),
    "unknown join": (
        lambda c: c["prune"]["dissimilar"]["nearest-quarter"].update(join="median"),
        ("join", "'median'", "max, mean"),
    ),
    "size of nothing": (
        lambda c: c["prune"]["random"]["nearest-quarter-control"].update(size_of="x"),
        ("size_of", "'x'"),
    ),
    "a matched control of nothing": (
        lambda c: c["prune"]["matched"]["sketch-pruned-matched"].update(size_of="full"),
        ("prune.matched.sketch-pruned-matched.size_of", "'full'", "choose from a-pruned, combined, nearest-quarter"),
    ),
    "a control of a matched control": (
        lambda c: c["prune"]["random"]["nearest-quarter-control"].update(size_of="sketch-pruned-matched"),
        ("prune.random.nearest-quarter-control.size_of", "'sketch-pruned-matched'"),
    ),
    "matched on a field that is not annotated": (
        lambda c: c["prune"]["matched"]["sketch-pruned-matched"].update(match="colour"),
        ("prune.matched.sketch-pruned-matched.match", "'colour'", "class, style"),
    ),
    "seed of a matched control": (
        lambda c: c["prune"]["matched"]["sketch-pruned-matched"].update(seed=-1),
        ("prune.matched.sketch-pruned-matched.seed", "-1"),
    ),
    "bad override": (lambda c: c["runs"].update(full={"lr": 1}), ("runs.full", "lr", "learning_rate")),
    "missing block": (lambda c: c.pop("repeats"), ("repeats", "missing")),
    "same seed twice": (lambda c: c["repeats"].update(seeds=[1, 1]), ("repeats.seeds", "[1, 1]")),
    "negative seed": (lambda c: c["repeats"].update(seeds=[-1]), ("repeats.seeds", "-1")),
    "licence": (lambda c: c["benchmarks"].update(accepted_licences=[]), ("objectnet", "accepted_licences")),
    "query fraction": (lambda c: c["benchmarks"].update(query_fraction=0.0), ("benchmarks.query_fraction", "0.0")),
    "two embedders": (
        lambda c: c["embedder"].update(directory="x"),
        ("embedder", "train and directory", "exactly one"),
    ),
    "embedder's training": (lambda c: c["embedder"]["train"].update(batch_size=0), ("train.batch_size", "0")),
    "draw": (lambda c: c["draw"]["toy"].update(planted=500), ("planted", "500")),
    "infinite learning rate": (lambda c: c["train"].update(learning_rate=float("inf")), ("train.learning_rate", "inf")),
    "beta of 1": (lambda c: c["train"].update(beta1=1.5), ("train.beta1", "1.5")),
    "seed of a draw": (lambda c: c["draw"]["toy"].update(seed=-1), ("draw.toy.seed", "-1")),
    "seed of a control": (
        lambda c: c["prune"]["random"]["nearest-quarter-control"].update(seed=-2),
        ("nearest-quarter-control.seed", "-2"),
    ),
    "pool too small to plant in": (lambda c: c["draw"]["toy"].update(pool=100, broken=0), ("planted", "100")),
    "more broken than there are": (lambda c: c["draw"]["toy"].update(broken=30_000), ("broken", "30000")),
    "nothing to train": (lambda c: c.update(runs={}), ("runs", "empty")),
    "benchmark of a set's name": (lambda c: c["benchmarks"].update(names=["pool"]), ("benchmarks.names", "'pool'")),
    "benchmark that leaves its folder": (lambda c: c["benchmarks"].update(names=["../x"]), ("'../x'",)),
    "a drawn and copied dataset": (
        lambda c: c.update(copy={"toy": {"source": "x", "folders": ["x"], "sha256": "x"}}),
        ("copy.toy", "draw"),
    ),
    "a benchmark twice": (
        lambda c: c["prune"]["imagenet-like"].update(x={"benchmarks": ["val", "val"]}),
        ("prune.imagenet-like.x.benchmarks", "once"),
    ),
    "no such model": (lambda c: c["train"].update(model="presets/models/no.json"), ("train.model", "no.json")),
    "a model's name misspelt": (
        lambda c: c["train"].update(model="ViT-B-23"),
        ("train.model", "'ViT-B-23'", "choose from ViT-B-32, ", " more"),
    ),
    "the embedder's model": (
        lambda c: c["embedder"]["train"].update(model="coca_ViT-B-32"),
        ("embedder.train.model: coca_ViT-B-32", "CoCa"),
    ),
    "a run's model": (
        lambda c: c["runs"].update(full={"model": "ViT-B-16-SigLIP"}),
        ("runs.full.model: ViT-B-16-SigLIP", "hf_tokenizer_name"),
    ),
    "a run's model that is a number": (lambda c: c["runs"].update(full={"model": 3}), ("runs.full.model", "'3'")),
    "a pretrained model's name misspelt": (
        lambda c: c["embedder"].update(train=None, pretrained={"model": "ViT-B-23", "tag": "openai"}),
        ("embedder.pretrained.model", "'ViT-B-23'", "choose from ViT-B-32, "),
    ),
    "a pretrained model with a tokenizer to fetch": (
        lambda c: c["embedder"].update(train=None, pretrained={"model": "ViT-B-16-SigLIP", "tag": "webli"}),
        ("embedder.pretrained.model: ViT-B-16-SigLIP", "hf_tokenizer_name"),
    ),
    "a folder of a model's name": (lambda c: c["train"].update(model="presets/models"), ("train.model", "unknown")),
    "no such benchmark without shift": (
        lambda c: c["compare"].update(in_distribution_benchmark="vla"),
        ("compare.in_distribution_benchmark", "'vla'", "val, sketch"),
    ),
    "unknown precision": (
        lambda c: c["embed"].update(precision="fp8"),
        ("embed.precision", "'fp8'", "fp32, bf16, fp16"),
    ),
    "no draw of the shots": (
        lambda c: c["evaluate"]["few_shot"].update(draws=0),
        ("few_shot.draws", "0", "at least 1"),
    ),
    "shots twice": (lambda c: c["evaluate"]["few_shot"].update(shots=[1, 1]), ("few_shot.shots", "[1, 1]")),
    "eps of the ground truth": (lambda c: c["ground_truth"]["toy"].update(eps=[3.0]), ("eps", "3.0")),
    "not a mapping": (lambda c: c.update(prune=3), ("prune", "3")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_params_give_a_one_line_error_with_parameter_and_value(case: str, tmp_path: Path) -> None:
    change, words = BAD[case]
    content = copy.deepcopy(yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text()))
    change(content)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(SimgapError) as raised:
        load_params(path)
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_broken_yaml(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("threshold: [")
    with pytest.raises(SimgapError, match="not YAML"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "contains None"),
        (b"[1]", "contains [1]"),
        (b"caf\xe9: 1", "not YAML"),
        (b"threshold: 0.0\nthreshold: 0.1\n", 'line 2: found duplicate key "threshold"'),
        (b"a: &a [*a]\n", "nested too deeply"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b"a: " + b"1" * 5000, "too long"),
        (b"train: {2020-01-01: 1}", "must be text"),
    ],
)
def test_a_file_that_is_not_a_params_file(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(SimgapError) as raised:
        load_params(tmp_path / "params.yaml")
    assert words in str(raised.value)
    with pytest.raises(SimgapError, match="cannot be read"):
        load_params(tmp_path)


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 1e-3), ("1E-12", 1e-12), ("-2e-1", -0.2), ("0.05", 0.05), ("1", 1)]
)
def test_a_threshold_as_dvc_writes_it(tmp_path: Path, text: str, number: float) -> None:
    content = (REPOSITORY / "presets" / "toy.yaml").read_text()
    (tmp_path / "params.yaml").write_text(content.replace("threshold: 0.0", f"threshold: {text}"))
    assert load_params(tmp_path / "params.yaml").threshold == number


def test_a_range_error_names_file_and_place(tmp_path: Path) -> None:
    content = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    content["embedder"]["train"]["batch_size"] = 0
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SimgapError, match=r"params\.yaml: embedder\.train\.batch_size is 0; it must be at least 1"):
        load_params(tmp_path / "params.yaml")


def test_a_run_overrides_training() -> None:
    params = load_params(REPOSITORY / "presets" / "toy.yaml")
    changed = train_parameters(replace(params, runs={"full": {"batch_size": 64}}), "full")
    assert changed.batch_size == 64
    assert changed.learning_rate == params.train.learning_rate


def test_the_schema_for_editors_is_up_to_date_and_accepts_every_preset() -> None:
    """If this test fails, run `make schema`."""
    assert (REPOSITORY / "presets" / "schema.json").read_text() == json_schema()
    validator = jsonschema.Draft202012Validator(json.loads(json_schema()))
    for preset in PRESETS:
        validator.validate(yaml.safe_load(preset.read_text()))
    misspelt = yaml.safe_load(PRESETS[0].read_text())
    misspelt["train"]["bach_size"] = 1
    assert not validator.is_valid(misspelt)


def test_editors_find_the_schema() -> None:
    settings = json.loads((REPOSITORY / ".vscode" / "settings.json").read_text())
    assert settings == {"yaml.schemas": {"./presets/schema.json": ["params.yaml", "presets/*.yaml"]}}


@pytest.mark.parametrize("text", ["1e-3", "1E5", "010", "08", "0o10", "1:30", "yes", ".5", "1_000"])
def test_yaml_is_read_as_dvc_reads_it(text: str) -> None:
    content = (REPOSITORY / "presets" / "toy.yaml").read_text().replace("  epochs: 1.0", f"  epochs: {text}")
    value = parse_yaml(content, "params.yaml")["train"]["epochs"]
    if isinstance(value, str):
        with pytest.raises(SimgapError, match=f"epochs is '{value}'; it must be a number"):
            parse_params(content, "params.yaml")
    else:
        assert parse_params(content, "params.yaml").train.epochs == value
