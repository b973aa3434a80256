"""Check the preset of the paper's study, and run it in miniature."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import studies
import webdataset
import yaml
from conftest import REPOSITORY
from object_stores import CREDENTIALS, Proxy, object_store, proxy, s3_client
from studies import check_against_naive, commit, repository, run, stages_run

from simgap.core.errors import SimgapError
from simgap.core.files import read_json
from simgap.data.manifest import read_manifest
from simgap.data.shards import find_shards, read_samples
from simgap.params.draw import DrawParameters
from simgap.params.load import load_params
from simgap.toy.world import draw_world

PRESET = REPOSITORY / "presets" / "laion400m.yaml"
BENCHMARKS = ["val", "sketch", "r", "a", "v2"]
# Sizes of the paper's splits, in millions of rows.
SIZES = (175, 150, 125, 100, 75, 50, 40, 25)


def content() -> dict[str, Any]:
    return yaml.safe_load(PRESET.read_text())  # type: ignore[no-any-return]


def test_the_preset_has_the_settings_of_the_paper() -> None:
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
    # The training has 32 epochs of 200 million rows and ImageNet-Train. open_clip warmed up for 10,000 steps.
    assert round(train.warmup_fraction * 32 * (200_000_000 + 1_281_167) / 33_600, -3) == 10_000


def test_the_preset_prunes_and_trains_every_split_of_the_paper() -> None:
    params = load_params(PRESET)
    like = {name: split.benchmarks for name, split in params.prune.imagenet_like.items()}
    assert like == {"combined": BENCHMARKS, **{f"{name}-pruned": [name] for name in BENCHMARKS}}
    left_out = {
        name: [b for b in BENCHMARKS if b not in split.benchmarks]
        for name, split in params.prune.dissimilar.items()
        if name.startswith("nearest-100m")
    }
    assert left_out == {"nearest-100m": [], **{f"nearest-100m-without-{name}": [name] for name in BENCHMARKS}}
    assert all(params.prune.dissimilar[name].keep == 100_000_000 for name in left_out)
    for prefix, splits in (("nearest", params.prune.dissimilar), ("similar", params.prune.similar)):
        by_val = {name: split.keep for name, split in splits.items() if name.startswith(f"{prefix}-val-")}
        assert by_val == {f"{prefix}-val-{size}m": size * 1_000_000 for size in SIZES}
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
def test_the_graph_resolves_without_data(tmp_path: Path) -> None:
    folder = repository(tmp_path / "study", "laion400m", lambda _: None)
    found = run(folder, "dvc", "stage", "list", "--name-only").split()
    raw = content()
    splits = [f"{rule}@{name}" for rule, names in raw["prune"].items() for name in names]
    expected = {"code", "manifest@laion400m", "embedder", "deduplicate", "leaks", "compare", "galleries", "report"}
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


SHARDS, SHARD_SAMPLES = 40, 10
REHEARSED = ("full", "reference-only", "combined", "combined-control", "nearest-100m", "random-100m")
REHEARSED_SIZES = ("100m", "25m")
# The rehearsal trains no split that these controls belong to.
LEFT_OUT = ("val-pruned-control", "a-pruned-control", "v2-pruned-control")


def put_shards(store: str, pool: Path) -> None:
    """Write the samples of a folder's shards to the store, in tars of a few samples."""
    samples = (sample for shard in find_shards(pool) for sample in read_samples(shard))
    for number in range(SHARDS):
        content = io.BytesIO()
        with webdataset.TarWriter(content, encoder=False, mtime=0) as writer:
            for key, members in islice(samples, SHARD_SAMPLES):
                writer.write({"__key__": key, **members})
        s3_client(store).put_object(Bucket="rehearsal", Key=f"pool/{number:05d}.tar", Body=content.getvalue())


@pytest.fixture
def network(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Run a store of which every 25th answer fails, and set its address in the environment of all commands."""
    ways = ("cut", "error", "reset")
    with object_store("rehearsal", tmp_path / "log") as store, proxy(store) as server:
        server.fault = lambda number, path: ways[number // 25 % 3] if number % 25 == 0 else None
        others = {name: value for name, value in studies.ENVIRONMENT.items() if not name.startswith("AWS_")}
        monkeypatch.setattr(studies, "ENVIRONMENT", {**others, **CREDENTIALS, "AWS_ENDPOINT_URL": server.address})
        put_shards(store, world / "pool")
        yield server


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Draw a pool, a reference and benchmarks in the formats of the real ones."""
    size = DrawParameters(seed=0, pool=400, reference=300, queries=24, image_size=24, planted=3, broken=2)
    draw_world(size, tmp_path / "world")
    return tmp_path / "world"


def miniature(raw: dict[str, Any], embedder: Path) -> None:
    """Reduce sizes and models, change the address, and drop most of the splits that differ only in size."""
    raw["manifest"]["laion400m"]["address"] = "s3://rehearsal/pool"
    raw["embedder"].update(pretrained=None, directory=str(embedder))
    # Similarities of a tiny model are closer to 1, and a CPU cannot embed in fp16.
    raw["embed"].update(batch_size=32, precision="fp32")
    raw["deduplicate"].update(eps=0.0001, clusters=4, sample=200)
    for rule in ("dissimilar", "similar", "random"):
        by_size = {name for name in raw["prune"][rule] if name.endswith("m") and not name.endswith(REHEARSED_SIZES)}
        left_out = by_size | {*LEFT_OUT}
        raw["prune"][rule] = {name: keys for name, keys in raw["prune"][rule].items() if name not in left_out}
        for keys in raw["prune"][rule].values():
            if isinstance(keys["keep"], int) and keys["keep"]:
                keys["keep"] /= 200_000_000
    raw["train"].update(model="presets/models/tiny.json", epochs=0.5, batch_size=32, processes=1, shuffle_buffer=5)
    raw["resources"]["train"]["workers"] = 1
    raw["runs"] = {name: raw["runs"][name] for name in REHEARSED}
    raw["evaluate"]["batch_size"] = 32
    raw["compare"]["resamples"] = 100


@pytest.mark.long
@pytest.mark.slow
def test_a_dress_rehearsal_in_miniature(world: Path, network: Proxy, model_folder: Path, tmp_path: Path) -> None:
    folder = repository(tmp_path / "study", "laion400m", lambda raw: miniature(raw, model_folder))
    (folder / "data").mkdir()
    (folder / "data" / "imagenet").mkdir()
    for part in ("reference", "benchmarks"):
        (world / part).rename(folder / "data" / "imagenet" / part)
    output = run(folder, "dvc", "repro")
    assert set(network.faults) == {"cut", "error", "reset"}
    assert sorted(stages_run(output)) == sorted(run(folder, "dvc", "stage", "list", "--name-only").split())
    check_against_naive(folder)

    metrics = folder / "metrics"
    embedded = read_json(metrics / "embed" / "pool.json")
    assert (embedded["read"], embedded["kept"]) == (SHARDS * SHARD_SAMPLES, SHARDS * SHARD_SAMPLES - 2)
    kept = {name: read_json(metrics / "prune" / f"{name}.json")["kept"] for name in REHEARSED}
    assert kept["nearest-100m"] == kept["random-100m"] == kept["full"] // 2 > 100
    for name in REHEARSED:
        trained = read_json(metrics / "train" / f"{name}-0.json")
        assert (trained["kept_rows"], trained["reference_rows"]) == (kept[name], 300)
        assert 0 <= read_json(metrics / "evaluate" / f"{name}-0.json")["zero_shot/sketch/top1"] <= 1
    assert (folder / "report" / "index.html").is_file()
    exported = run(folder, "simgap", "export", "shards", "random-100m", "out")
    assert f"{kept['random-100m']} samples in 1 shards" in exported

    commit(folder)
    assert stages_run(run(folder, "dvc", "repro")) == []
    # If listing the shards again gives the same manifest, no other stage runs.
    manifest = folder / "data" / "worlds" / "laion400m" / "manifest.csv"
    assert len(read_manifest(manifest)) == SHARDS
    before = manifest.read_bytes()
    assert stages_run(run(folder, "dvc", "repro", "--force", "manifest@laion400m")) == ["code", "manifest@laion400m"]
    assert manifest.read_bytes() == before
    assert stages_run(run(folder, "dvc", "repro")) == []
