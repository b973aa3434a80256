"""The preset of the paper's study: whole, and its graph resolves without any data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from studies import repository, run

from simgap.errors import SimgapError
from simgap.params import load_params

PRESET = REPOSITORY / "presets" / "laion400m.yaml"
BENCHMARKS = ["val", "sketch", "r", "a", "v2"]
# Millions of rows that the paper's splits by size keep.
SIZES = (175, 150, 125, 100, 75, 50, 40, 25)


def content() -> dict[str, Any]:
    return yaml.safe_load(PRESET.read_text())  # type: ignore[no-any-return]


def test_it_is_the_paper_s_study() -> None:
    params = load_params(PRESET)
    assert params.threshold == 0
    assert params.embedder.pretrained is not None
    assert (params.embedder.pretrained.model, params.embedder.pretrained.tag) == ("ViT-B-16-plus-240", "laion400m_e32")
    assert (params.deduplicate.eps, params.deduplicate.clusters) == (0.124, 50_000)
    assert params.benchmarks.names == BENCHMARKS
    assert params.benchmarks.query_fraction == 1
    assert params.reference.add_to_pool
    train = params.train
    assert (train.model, train.budget, train.epochs, train.batch_size) == ("ViT-B-32", "epochs", 32, 33_600)
    assert (train.learning_rate, train.weight_decay, train.beta2, train.precision) == (5e-4, 0.2, 0.98, "bf16")
    # Steps of 32 epochs of 200 million rows and ImageNet-Train, of which open_clip warmed up for 10,000.
    assert round(train.warmup_fraction * 32 * (200_000_000 + 1_281_167) / 33_600, -3) == 10_000


def test_every_split_of_the_paper_is_made_and_trained() -> None:
    params = load_params(PRESET)
    like = {name: split.benchmarks for name, split in params.prune.imagenet_like.items()}
    assert like == {"combined": BENCHMARKS, **{f"{name}-pruned": [name] for name in BENCHMARKS}}
    left_out = {
        name: [b for b in BENCHMARKS if b not in split.benchmarks]
        for name, split in params.prune.dissimilar.items()
        if name.startswith("dissimilar-100m")
    }
    assert left_out == {"dissimilar-100m": [], **{f"dissimilar-100m-without-{name}": [name] for name in BENCHMARKS}}
    assert all(params.prune.dissimilar[name].keep == 100_000_000 for name in left_out)
    for rule, splits in (("dissimilar", params.prune.dissimilar), ("similar", params.prune.similar)):
        by_val = {name: split.keep for name, split in splits.items() if name.startswith(f"{rule}-val-")}
        assert by_val == {f"{rule}-val-{size}m": size * 1_000_000 for size in SIZES}
    ranked = {**params.prune.dissimilar, **params.prune.similar}
    for size in SIZES:
        assert ranked[params.prune.random[f"random-{size}m"].size_of].keep == size * 1_000_000
    made = {"full", *(name for splits in params.prune.rules().values() for name in splits)}
    assert set(params.runs) == made


def test_objectnet_is_off_until_its_licence_is_accepted(tmp_path: Path) -> None:
    raw = content()
    raw["benchmarks"]["names"].append("objectnet")
    raw["prune"]["imagenet-like"]["objectnet-pruned"] = {"benchmarks": ["objectnet"]}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(SimgapError, match=r"objectnet.*accepted_licences"):
        load_params(path)
    raw["benchmarks"]["accepted_licences"] = ["objectnet"]
    path.write_text(yaml.safe_dump(raw))
    assert load_params(path).prune.imagenet_like["objectnet-pruned"].benchmarks == ["objectnet"]


@pytest.mark.slow
def test_its_graph_resolves_without_data(tmp_path: Path) -> None:
    folder = repository(tmp_path / "study", "laion400m", lambda _: None)
    found = run(folder, "dvc", "stage", "list", "--name-only").split()
    raw = content()
    splits = [f"{rule}@{name}" for rule, names in raw["prune"].items() for name in names]
    expected = {"manifest@laion400m", "embedder", "deduplicate", "leaks", "compare", "galleries", "report"}
    expected |= {"embed@pool", "embed@reference", "profile-full@full"}
    expected |= {f"{stage}@{name}" for stage in ("embed-benchmark", "similarity") for name in BENCHMARKS}
    expected |= {f"{stage}-{split}" for stage in ("prune", "profile") for split in splits}
    expected |= {f"{stage}@{run}-0" for stage in ("train", "evaluate") for run in raw["runs"]}
    assert sorted(found) == sorted(expected)
    lines = run(folder, "dvc", "dag", "--dot", "report").splitlines()
    assert any('"evaluate@full-0" -> "compare"' in line for line in lines)
    assert any('"embedder" -> "embed@pool"' in line for line in lines)
    for stage in ("embed@pool", "train@full-0", "galleries"):
        assert any(f'"manifest@laion400m" -> "{stage}"' in line for line in lines)
