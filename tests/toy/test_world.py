from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simgap.core.files import sha256_of
from simgap.data.benchmarks import load_benchmark
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import Accounting, find_shards, read_json_members, read_shard
from simgap.params.draw import DrawParameters
from simgap.toy.objects import KINDS
from simgap.toy.world import BENCHMARKS, draw_sample, draw_world, key_of, plan_planted

PARAMETERS = DrawParameters(seed=3, pool=520, reference=40, queries=24, image_size=24, planted=3, broken=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("toy") / "world"
    return folder, draw_world(PARAMETERS, folder)


def test_a_world_has_the_layout_of_real_data(world) -> None:
    folder, metrics = world
    pool = [
        s for path in find_shards(folder / "pool") for s in read_shard(path, Accounting(), caption=True, label=False)
    ]
    reference = [
        s
        for path in find_shards(folder / "reference")
        for s in read_shard(path, Accounting(), caption=True, label=True)
    ]
    assert len(pool) == 520
    assert len(reference) == 40
    assert metrics["pool/samples"] == 520
    assert sum(count for name, count in metrics.items() if name.startswith("pool/style/")) == 520
    for name in BENCHMARKS:
        benchmark = load_benchmark(folder / "benchmarks" / name)
        samples = [s for path in benchmark.shards for s in read_shard(path, Accounting(), caption=False, label=True)]
        assert len(samples) == 24
        assert max(s.label for s in samples) < len(benchmark.classnames)
        assert set(benchmark.classnames) <= set(KINDS)
        assert decode(samples[0].image).size == (24, 24)


def test_labels_are_the_drawn_classes(world) -> None:
    folder, _ = world
    benchmark = load_benchmark(folder / "benchmarks" / "objectnet")
    samples = list(read_shard(benchmark.shards[0], Accounting(), caption=False, label=True))
    for index, sample in enumerate(samples):
        drawn = draw_sample(PARAMETERS, "objectnet", index)
        assert sample.image == drawn.image
        assert benchmark.classnames[sample.label] == KINDS[drawn.kind]


def test_the_seed_determines_every_byte(world, tmp_path: Path) -> None:
    folder, metrics = world
    assert draw_world(PARAMETERS, tmp_path / "again") == metrics
    assert sha256_of(tmp_path / "again") == sha256_of(folder)
    other = draw_sample(DrawParameters(**{**vars(PARAMETERS), "seed": 4}), "val", 0)
    assert other.image != draw_sample(PARAMETERS, "val", 0).image


def _pixels(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), np.float64)


def test_planted_rows_are_copies_of_what_their_annotations_name(world) -> None:
    folder, metrics = world
    images, annotations = {}, {}
    for path in find_shards(folder / "pool"):
        for sample in read_shard(path, Accounting(), caption=True, label=False):
            images[sample.key] = sample.image
        for key, text in read_json_members(path, Accounting()):
            annotations[key] = json.loads(text)
    planted = {key: annotation for key, annotation in annotations.items() if annotation["planted"]}
    assert len(planted) == 3 * 3 * (len(BENCHMARKS) + 2)
    assert {how: metrics[f"pool/planted/{how}"] for how in ("exact", "near", "sibling")} == dict.fromkeys(
        ("exact", "near", "sibling"), 24
    )
    assert len({annotation["copy_of"] for annotation in planted.values()}) == len(planted)
    for key, annotation in planted.items():
        source, _, original_key = annotation["copy_of"].partition("/")
        index = int(original_key[:5]) * 500 + int(original_key[5:])
        original = draw_sample(PARAMETERS, source, index)
        assert annotation["style"] == original.style
        if annotation["planted"] == "exact":
            assert images[key] == original.image
        else:
            assert images[key] != original.image
        if annotation["planted"] == "near":
            difference = np.abs(_pixels(images[key])[3:-3, 3:-3] - _pixels(original.image)[3:-3, 3:-3]).mean()
            assert difference < 40
        if source == "pool":
            assert annotations[original_key]["planted"] is None


def test_no_planted_row_is_a_copy_of_a_planted_row() -> None:
    plan = plan_planted(PARAMETERS)
    assert not {planted.index for planted in plan.values() if planted.source == "pool"} & set(plan)


def test_at_most_as_many_images_are_broken_as_asked(world) -> None:
    folder, metrics = world
    broken = 0
    for path in find_shards(folder / "pool"):
        for sample in read_shard(path, Accounting(), caption=True, label=False):
            try:
                decode(sample.image)
            except BrokenImage:
                broken += 1
    assert broken == metrics["pool/broken"]
    assert 1 <= broken <= 4


def test_keys() -> None:
    assert key_of(0) == "000000000"
    assert key_of(1234) == "000020234"
