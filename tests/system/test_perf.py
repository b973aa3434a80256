"""Run the programs of `perf` on little data."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from conftest import MODEL_CONFIG, REPOSITORY, write_pool
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from perf import clip_retrieval, deduplicate, embed, environment, evaluate, plan, prune, scaling, similarity
from perf import train as perf_train
from simgap.clip.model import load
from simgap.core.errors import SimgapError
from simgap.core.files import sha256_of
from simgap.params.resources import TrainResources
from simgap.plan.models import model_size
from simgap.plan.rates import measured
from simgap.train.data import readable_shards
from simgap.train.train import train


def run(program, *options: str) -> str:
    result = CliRunner().invoke(program.main, list(options), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_similarity(tmp_path: Path) -> None:
    sizes = ("--rows", "300", "--queries", "40", "--dim", "16", "--repeats", "1", "--disk-rows", "500")
    printed = run(similarity, *sizes, "--folder", str(tmp_path), "--json", str(tmp_path / "out.json"))
    assert "FAISS, three searches" in printed
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["rows"] == 300
    assert content["machine"]["cores"] >= 1
    assert all(len(seconds) == 1 for seconds in content["seconds"].values())
    assert content["from_disk"]["rows"] == 500


def test_prune(tmp_path: Path) -> None:
    options = ("--rows", "5000", "--keep", "2000", "--reference-rows", "1000", "--benchmarks", "2")
    printed = run(prune, *options, "--folder", str(tmp_path), "--json", str(tmp_path / "out.json"))
    assert "memory ratio" in printed
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["machine"]["cores"] >= 1
    assert content["rules"]["dissimilar"]["kept"] == content["rules"]["random"]["kept"] == 2000
    for rule, sides in content["side_by_side"].items():
        assert sides["simgap"]["rows"] == sides["reference"]["rows"] == 1000
        assert sides["simgap"]["kept"] == sides["reference"]["kept"], rule
        assert all(ratio > 0 for ratio in sides["ratios"].values())
    assert set(content["side_by_side"]) == {"imagenet-like", "dissimilar"}
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_slope_is_the_exponent() -> None:
    rows = [10.0, 100.0, 1000.0]
    assert scaling.slope(rows, [3 * count**1.5 for count in rows]) == pytest.approx(1.5)
    assert scaling.slope(rows, [7.0, 7.0, 7.0]) == pytest.approx(0)


def test_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    study = tmp_path / "study"
    for folder in ("metrics/embed", "metrics/similarity", "metrics/prune", "logs"):
        (study / folder).mkdir(parents=True)
    (study / "params.yaml").write_text((REPOSITORY / "presets" / "toy.yaml").read_text())
    names = ("embed/pool", "embed/reference", "prune/full", "similarity/val", "similarity/r", "similarity/a")
    for time, name in enumerate(names):
        metrics = study / "metrics" / f"{name}.json"
        metrics.write_text(json.dumps({"kept": 100, "read": 100, "of": name}))
        os.utime(metrics, (1000 + 5 * time, 1000 + 5 * time))
    log = study / "logs" / f"pool-{sha256_of(study / 'metrics/embed/pool.json')[:16]}.json"
    log.write_text(json.dumps({"images_per_second": 25.0, "seconds": 4.0}))
    lock = {
        "embed@pool": {
            "deps": [{"path": "data/worlds/toy/pool"}],
            "outs": [{"path": "data/embeddings/pool", "size": 777}, {"path": "metrics/embed/pool.json", "size": 1}],
        },
        "similarity@val": {"outs": [{"path": "data/similarity/val", "size": 30}]},
    }
    (study / "dvc.lock").write_text(json.dumps({"stages": lock}))
    timing = {"rows": 10, "queries": 10, "dim": 10, "neighbours": 1, "medians": {"engine cpu, fp32": 1.0}}
    (study / "similarity.json").write_text(json.dumps(timing))
    rates = ("--rates", str(study / "similarity.json"))
    printed = run(plan, str(study), *rates, "--rates-of", str(study), "--json", str(tmp_path / "out.json"))
    assert "predicted / was" in printed
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["seconds of work (logs)"] == {"embed": {"instances": 1, "predicted": 4.0, "was": 4.0}}
    by_stage = found["seconds in all (file times)"]
    # There is no start time for the first metrics file of a folder, so it is left out.
    assert by_stage["embed"] == {"instances": 1, "predicted": 8 + 4, "was": 5}
    assert by_stage["similarity"]["instances"] == 2
    assert by_stage["similarity"]["predicted"] == pytest.approx(2 * (8 + 2 * 200 * 400 * 128 / 2000))
    assert by_stage["similarity"]["was"] == 10
    printed = run(plan, str(study), "--from", "pool", "--json", str(tmp_path / "other.json"))
    assert "rate of embed: logs of 1 stage" in printed
    other = json.loads((tmp_path / "other.json").read_text())
    # The instance that gave the rate is left out of the comparison.
    assert other["seconds of work (logs)"] == {}
    assert other["seconds in all (file times)"]["embed"]["predicted"] == pytest.approx(8 + 100 / 25)
    bytes_left = found["bytes left (dvc.lock)"]
    assert bytes_left["embed"]["was"] == 777
    assert bytes_left["similarity"] == {"instances": 1, "predicted": 100 * 12 + 400 * (10 * 12 + 25), "was": 30}


@pytest.mark.long
@pytest.mark.slow
def test_scaling(tmp_path: Path) -> None:
    sizes = ("--rows", "3000", "--rows", "600", "--dim", "16", "--queries", "20", "--clusters", "5")
    options = ("--plot", str(tmp_path / "plot.png"), "--json", str(tmp_path / "out.json"))
    printed = run(scaling, *sizes, "--folder", str(tmp_path), *options)
    found = json.loads((tmp_path / "out.json").read_text())["scaling"]
    assert set(found) == {"embed", "similarity", "deduplicate", "prune", "report"}
    for step, found_step in found.items():
        assert found_step["rows"] == ([12, 60] if step == "embed" else [600, 3000])
        assert all(value > 0 for unit in ("seconds", "memory_mb") for value in found_step[unit])
        assert f"{step}  " in printed
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "plot.png"]


@pytest.mark.slow
def test_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function replaces CLIP_benchmark here. `tests/evaluate/test_parity.py` runs the real one."""
    drawn: list[Path] = []

    def stand_in(command: Path, model: Path, benchmarks: list[Path], out: Path) -> evaluate.Metrics:
        assert command == tmp_path / "environment"
        assert (model / "open_clip_config.json").is_file()
        drawn.extend(benchmarks)
        return {path.name: {"acc1": 0.5, "acc5": 0.5, "mean_per_class_recall": 0.5} for path in benchmarks}

    monkeypatch.setattr(evaluate.clip_benchmark, "install", lambda folder: folder)
    monkeypatch.setattr(evaluate.clip_benchmark, "evaluate", stand_in)
    options = ("--images", "8", "--repeats", "1", "--environment", str(tmp_path / "environment"))
    printed = run(evaluate, *options, "--json", str(tmp_path / "out.json"))
    assert "speedup over CLIP_benchmark" in printed
    content = json.loads((tmp_path / "out.json").read_text())
    assert [path.name for path in drawn] == ["val", "sketch", "r", "a"]
    assert set(content["metrics"]["simgap"]) == {path.name for path in drawn}
    assert all(len(seconds) == 1 for seconds in content["seconds"].values())
    assert 0 < content["largest_difference"] <= 0.5


@pytest.mark.slow
def test_embed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """simgap's own vectors replace clip-retrieval here. `test_clip_retrieval_embeds_the_same` runs the real one."""

    def stand_in(python: Path, model: Path, shards: list[Path], batch_size: int, workers: int, out: Path):
        assert python == tmp_path / "environment"
        return 2.0, embed.by_simgap(load(model), shards, batch_size, workers, out)

    monkeypatch.setattr(embed.clip_retrieval, "install", lambda folder: folder)
    monkeypatch.setattr(embed.clip_retrieval, "embed", stand_in)
    options = ("--images", "8", "--small-images", "12", "--repeats", "2", "--decoders", "2")
    printed = run(embed, *options, "--environment", str(tmp_path / "environment"), "--json", str(tmp_path / "out.json"))
    assert "of the limit" in printed
    content = json.loads((tmp_path / "out.json").read_text())
    assert set(content["models"]) == {"ViT-B-32", "toy"}
    for found in content["models"].values():
        assert len(found["seconds"]) == 5
        assert all(len(seconds) == 2 for seconds in found["seconds"].values())
        assert found["images_per_second"]["clip-retrieval"] == found["images"] / 2
        assert found["smallest_cosine"] == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_clip_retrieval_embeds_the_same(tmp_path: Path) -> None:
    """The model has OpenAI's mean and standard deviation, because clip-retrieval's open_clip always uses these."""
    try:
        python = clip_retrieval.install(REPOSITORY / "scratch" / "clip_retrieval")
    except SimgapError as error:
        pytest.skip(f"clip-retrieval does not install: {error}")
    openai = {"mean": list(OPENAI_DATASET_MEAN), "std": list(OPENAI_DATASET_STD)}
    config = {**MODEL_CONFIG, "preprocess_cfg": {**MODEL_CONFIG["preprocess_cfg"], **openai}}
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    model = evaluate.make_model(str(tmp_path / "tiny.json"), tmp_path)
    shards = embed.draw_shards(embed.Case("", 40, 12, 4), tmp_path / "shards")
    ours = embed.by_simgap(load(model), shards, 4, 2, tmp_path / "ours")
    seconds, theirs = clip_retrieval.embed(python, model, shards, 4, 2, tmp_path / "theirs")
    assert seconds > 0
    assert set(theirs) == set(ours)
    for key, vector in ours.items():
        assert np.allclose(vector.astype(np.float64), theirs[key].astype(np.float64), atol=2e-3)
    # If all vectors were alike, they would agree in any order.
    assert np.ptp(np.stack(list(ours.values())).astype(np.float64), axis=0).max() > 0.05


def test_deduplicate(tmp_path: Path) -> None:
    sizes = ("--quality-rows", "600", "--quality-clusters", "3", "--rows", "500", "--clusters", "5", "--dim", "64")
    options = ("--previous-rows", "300", "--block-rows", "100", "--folder", str(tmp_path))
    printed = run(deduplicate, *sizes, *options, "--json", str(tmp_path / "out.json"))
    assert "within clusters, float64" in printed
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["float64_gives_the_same"]
    quality = content["quality"]
    assert quality["dropped_without_a_lower_neighbour"] == 0
    assert quality["dropped"] <= quality["dropped_by_all_pairs"]
    assert 0 < quality["recall_of_planted_pairs"] <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simgap training of the same length replaces open_clip's program here."""
    (tmp_path / "model.json").write_text(json.dumps(MODEL_CONFIG))
    pool = write_pool(tmp_path / "pool", 2, 16)
    commands: list[list[str]] = []

    def stand_in(*command: str) -> None:
        commands.append(list(command))
        seen = int(command[command.index("--train-num-samples") + 1])
        shards = readable_shards(pool)
        chosen = perf_train.parameters_of(tmp_path / "model.json", seen, 8, 1)
        folder = tmp_path / f"stand-in-{len(commands)}"
        folder.mkdir()
        train(chosen, TrainResources(0, 10**9), 0, shards, 32, folder / "model", folder)

    monkeypatch.setattr(environment, "install", lambda folder, packages: folder)
    monkeypatch.setattr(environment, "call", stand_in)
    sizes = ["--samples", "320", "--batch-size", "8", "--workers", "0"]
    places = ["--pool", str(pool), "--model", str(tmp_path / "model.json"), "--environment", str(tmp_path / "bin")]
    printed = run(perf_train, *sizes, *places, "--json", str(tmp_path / "out.json"))
    assert "open_clip_train" in printed
    content = json.loads((tmp_path / "out.json").read_text())
    assert set(content["medians"]) == {"open_clip_train", "simgap"}
    size = model_size(str(tmp_path / "model.json"))
    assert content["flop_per_sample"] == 3 * (size.image_flop + size.text_flop)
    assert all(math.isfinite(rate) for rates in content["rates"].values() for rate in rates)
    assert [command[command.index("--train-num-samples") + 1] for command in commands] == ["320", "640"]
    for command in commands:
        assert command[command.index("--train-data") + 1] == f"{pool.resolve()}/{{00000..00001}}.tar"


def test_train_with_the_params_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """perf.train measures one process of the study's training, with the model, batch and pool of the study."""
    seen = []

    def measure_little(work: Callable[[int], None], samples: int) -> float:
        work(16)
        seen.append(samples)
        return 100.0

    monkeypatch.setattr(environment, "install", None)
    monkeypatch.setattr(perf_train, "rate", measure_little)
    (tmp_path / "model.json").write_text(json.dumps(MODEL_CONFIG))
    content = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    content["pool"]["path"] = content["pool"]["embed"] = str(write_pool(tmp_path / "pool", 2, 16))
    content["train"].update(model=str(tmp_path / "model.json"), batch_size=16, processes=2, grad_checkpointing=False)
    content["train"].update(micro_batch_size=4, readers=2)
    content["resources"]["train"]["workers"] = 0
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    options = ["--params", str(tmp_path / "params.yaml"), "--samples", "320"]
    printed = run(perf_train, *options, "--json", str(tmp_path / "out.json"))
    assert "open_clip_train" not in printed
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["batch_size"], found["workers"], set(found["medians"])) == (8, 0, {"simgap"})
    (rate,) = measured([tmp_path / "out.json"]).by_work["train"]
    size = model_size(str(tmp_path / "model.json"))
    # A process has eight samples in two micro-batches, so it computes the features twice.
    assert rate.flop == 4 * (size.image_flop + size.text_flop)
    assert (rate.per_second, seen) == (100.0, [320])
    refused = CliRunner().invoke(perf_train.main, [*options[:2], "--samples", "21"])
    assert refused.output == "error: --samples is 21; it must be a multiple of the batch size, 8\n"
