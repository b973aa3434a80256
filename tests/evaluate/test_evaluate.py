from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import jpeg, write_benchmark, write_pool, write_tar

from simgap.data.benchmarks import load_benchmark
from simgap.data.images import decode
from simgap.data.shards import Accounting, read_shard
from simgap.embed.model import load
from simgap.errors import SimgapError
from simgap.evaluate.accuracy import mean_per_class_recall, ranking
from simgap.evaluate.evaluate import evaluate
from simgap.evaluate.few_shot import benchmark_scores, choose_shots, map_classes, ridge_scores, shot_order
from simgap.evaluate.parameters import EvaluateParameters, FewShotParameters

PARAMETERS = EvaluateParameters(batch_size=8, few_shot=FewShotParameters(shots=[1, 3], ridge=0.5, seed=0))


@pytest.fixture(scope="module")
def model(model_folder: Path):
    return load(model_folder)


def test_ties_go_to_the_lower_class() -> None:
    scores = np.array([[0.1, 0.5, 0.5, 0.2], [0.0, 0.0, 0.0, 0.0]])
    assert ranking(scores, 3).tolist() == [[1, 2, 3], [0, 1, 2]]


def test_mean_per_class_recall_counts_classes_alike() -> None:
    labels, predictions = np.array([0, 0, 0, 1, 5]), np.array([0, 0, 1, 1, 0])
    assert mean_per_class_recall(labels, predictions) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_zero_shot_is_the_argmax_over_the_mean_prompts(model, tmp_path: Path) -> None:
    labels = [0, 1, 2, 0, 1, 2, 2, 1, 0, 1, 2]
    folder = write_benchmark(tmp_path / "val", labels, ["cat", "red dog", "house"])
    reference = write_pool(tmp_path / "reference", 2, 9, labels=True)
    metrics = evaluate(PARAMETERS, model, [load_benchmark(folder)], reference, ("cat", "red dog"), tmp_path / "out")
    samples = list(read_shard(folder / "test" / "0.tar", Accounting(), caption=False, label=True))
    with torch.inference_mode():
        images = torch.cat(
            [model.clip.encode_image(model.preprocess(decode(s.image))[None], normalize=True) for s in samples]
        )
        classes = []
        for name in ("cat", "red dog", "house"):
            prompts = [
                model.clip.encode_text(model.tokenizer([text]), normalize=True)[0]
                for text in (f"a photo of a {name}", f"a {name}")
            ]
            mean = (prompts[0] + prompts[1]) / 2
            classes.append(mean / mean.norm())
    expected = (images @ torch.stack(classes).T).argmax(dim=1).numpy()
    table = pq.read_table(tmp_path / "out" / "val.parquet")
    assert table.column("prediction").to_pylist() == expected.tolist()
    assert table.column("label").to_pylist() == labels
    assert metrics["zero_shot/val/top1"] == pytest.approx(np.mean(expected == labels))
    assert metrics["zero_shot/val/top5"] == 1.0
    # "house" is no class of the reference.
    assert metrics["few_shot/val/refused"] is True
    assert not any(column.endswith("_shot") for column in table.column_names)


def test_few_shot_and_broken_images(model, tmp_path: Path) -> None:
    folder = write_benchmark(tmp_path / "val", [0, 1, 0, 1], ["dog", "cat"])
    write_tar(folder / "test" / "1.tar", [("x.jpg", b"broken"), ("x.cls", b"0")])
    (folder / "test" / "nshards.txt").write_text("2")
    reference = write_pool(tmp_path / "reference", 2, 9, labels=True)
    metrics = evaluate(PARAMETERS, model, [load_benchmark(folder)], reference, ("cat", "dog"), tmp_path / "out")
    assert metrics["zero_shot/val/read"] == 5
    assert metrics["zero_shot/val/kept"] == 4
    assert metrics["zero_shot/val/dropped/broken_image"] == 1
    table = pq.read_table(tmp_path / "out" / "val.parquet")
    for shots in (1, 3):
        assert metrics[f"few_shot/val/top1_{shots}_shot"] == np.mean(table.column(f"correct_{shots}_shot").to_numpy())
    assert metrics["few_shot/val/refused"] is False


def test_bad_benchmarks_and_references(model, tmp_path: Path) -> None:
    folder = write_benchmark(tmp_path / "val", [0, 5], ["dog", "cat"])
    reference = write_pool(tmp_path / "reference", 1, 9, labels=True)
    with pytest.raises(SimgapError, match="label 5 is outside the class list of 2"):
        evaluate(PARAMETERS, model, [load_benchmark(folder)], reference, ("cat", "dog"), tmp_path / "out")
    many = EvaluateParameters(batch_size=8, few_shot=FewShotParameters(shots=[6], ridge=0.5, seed=0))
    with pytest.raises(SimgapError, match=r"evaluate\.few_shot\.shots: 6"):
        evaluate(many, model, [load_benchmark(folder)], reference, ("cat", "dog"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ridge_regression_against_its_normal_equations() -> None:
    random = np.random.default_rng(0)
    features, queries = random.normal(size=(12, 5)).astype(np.float32), random.normal(size=(4, 5)).astype(np.float32)
    labels = np.arange(12) % 3
    x = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    y = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
    penalty = 0.7 * (x**2).sum(axis=1).mean()
    weights = np.linalg.inv(x.T @ x + penalty * np.eye(5)) @ x.T @ (y - y.mean(axis=0))
    expected = (queries.astype(np.float64) - features.astype(np.float64).mean(axis=0)) @ weights + y.mean(axis=0)
    assert np.allclose(ridge_scores(features, labels, 3, 0.7, queries), expected)


def test_shots_are_seeded_balanced_and_nested() -> None:
    labels, names = np.arange(60) % 4, ("a", "b", "c", "d")
    few, more = (choose_shots(labels, names, shots, shot_order(labels, 0)) for shots in (2, 5))
    assert np.bincount(labels[few]).tolist() == [2, 2, 2, 2]
    assert set(few) <= set(more)
    assert not np.array_equal(few, choose_shots(labels, names, 2, shot_order(labels, 1)))


def test_a_broken_shot_is_replaced_by_the_next_of_its_class(model, tmp_path: Path) -> None:
    folder = write_benchmark(tmp_path / "val", [0, 1, 0, 1], ["cat", "dog"])
    members = []
    for index in range(12):
        image = b"broken" if index in (0, 1, 4, 7) else jpeg(index)
        members += [(f"{index:02d}.jpg", image), (f"{index:02d}.cls", str(index % 2).encode())]
    write_tar(tmp_path / "reference" / "0.tar", members)
    parameters = EvaluateParameters(batch_size=8, few_shot=FewShotParameters(shots=[4], ridge=0.5, seed=0))
    reference, names = tmp_path / "reference", ("cat", "dog")
    metrics = evaluate(parameters, model, [load_benchmark(folder)], reference, names, tmp_path / "out")
    assert "few_shot/val/top1_4_shot" in metrics


def test_a_benchmark_that_is_cut_off_is_not_evaluated(model, tmp_path: Path) -> None:
    folder = write_benchmark(tmp_path / "val", [0, 1, 0, 1], ["cat", "dog"])
    shard = folder / "test" / "0.tar"
    shard.write_bytes(shard.read_bytes()[: 2 * 2560])
    reference = write_pool(tmp_path / "reference", 1, 9, labels=True)
    with pytest.raises(SimgapError, match="a benchmark should be whole"):
        evaluate(PARAMETERS, model, [load_benchmark(folder)], reference, ("cat", "dog"), tmp_path / "out")


def test_classes_of_a_benchmark_map_to_the_reference() -> None:
    reference = ("cat", "dog", "wolf")
    assert map_classes(("dog", "cat"), reference, None) == ((1,), (0,))
    assert map_classes(("dog", "eel"), reference, None) is None
    assert map_classes(("canine", "cat"), reference, ((1, 2), (0,))) == ((1, 2), (0,))
    with pytest.raises(SimgapError, match="class 3 is outside"):
        map_classes(("canine", "cat"), reference, ((1, 3), (0,)))
    scores = np.array([[0.1, 0.2, 0.9]])
    assert benchmark_scores(scores, ((1, 2), (0,))).tolist() == [[0.9, 0.1]]
