from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import jpeg, write_benchmark, write_pool, write_tar
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score, classification_report

from simgap.clip.model import load
from simgap.core.errors import SimgapError
from simgap.data.benchmarks import Benchmark, load_benchmark
from simgap.data.images import BrokenImage, decode
from simgap.data.shards import Accounting, find_shards, read_shard
from simgap.evaluate.accuracy import class_table, mean_per_class_recall, ranking
from simgap.evaluate.evaluate import evaluate
from simgap.evaluate.few_shot import benchmark_scores, fit_probe, map_classes
from simgap.evaluate.shots import Shots, shot_order
from simgap.params.evaluate import EvaluateParameters, FewShotParameters

FEW_SHOT = FewShotParameters(shots=[1, 3], draws=2, ridge=0.5, seed=0)
PARAMETERS = EvaluateParameters(batch_size=8, few_shot=FEW_SHOT)


@pytest.fixture(scope="module")
def model(model_folder: Path):
    return load(model_folder)


@pytest.fixture
def embedded(store):
    """Return a function that writes embeddings of a reference, of which only the metadata is meaningful."""

    def embed(reference: Path) -> Path:
        samples = [
            sample
            for path in find_shards(reference)
            for sample in read_shard(path, Accounting(), caption=False, label=True)
            if _readable(sample.image)
        ]
        made = store("reference", np.ones((len(samples), 1), np.float16))
        table = {name: [getattr(sample, name) for sample in samples] for name in ("shard", "key", "label")}
        pq.write_table(pa.table(table), made.folder / "metadata" / "metadata_0000.parquet")
        return made.folder

    return embed


def _readable(image: bytes) -> bool:
    try:
        decode(image)
    except BrokenImage:
        return False
    return True


def test_ties_go_to_the_lower_class() -> None:
    scores = np.array([[0.1, 0.5, 0.5, 0.2], [0.0, 0.0, 0.0, 0.0]])
    assert ranking(scores, 3).tolist() == [[1, 2, 3], [0, 1, 2]]


@given(st.lists(st.lists(st.sampled_from([-0.5, 0.0, 0.25, 0.5]), min_size=6, max_size=6), min_size=1, max_size=9))
def test_ranking_is_the_start_of_a_stable_sort(rows: list[list[float]]) -> None:
    scores = np.array(rows)
    for depth in (1, 5, 6):
        assert np.array_equal(ranking(scores, depth), np.argsort(-scores, axis=1, kind="stable")[:, :depth])
    assert np.array_equal(scores, np.array(rows))


def test_mean_per_class_recall_weighs_classes_equally() -> None:
    labels, predictions = np.array([0, 0, 0, 1, 5]), np.array([0, 0, 1, 1, 0])
    assert mean_per_class_recall(labels, predictions) == pytest.approx((2 / 3 + 1 + 0) / 3)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_metrics_of_classes_agree_with_scikit_learn(pairs) -> None:
    labels, predictions = (np.array(values, np.int64) for values in zip(*pairs, strict=True))
    # CLIP_benchmark calls this function of scikit-learn.
    assert mean_per_class_recall(labels, predictions) == pytest.approx(balanced_accuracy_score(labels, predictions))
    best = np.stack([predictions, *((predictions + step) % 6 for step in (1, 2, 3, 4))], axis=1)
    table = class_table(labels, best, tuple("abcdef"))
    expected = classification_report(labels, predictions, labels=range(6), output_dict=True, zero_division=0)
    for label in range(6):
        of_class = {column: values[label] for column, values in table.items()}
        assert of_class["class"] == "abcdef"[label]
        assert of_class["images"] == expected[str(label)]["support"]
        assert (of_class["top1"] or 0) == pytest.approx(expected[str(label)]["recall"])
        assert (of_class["precision"] or 0) == pytest.approx(expected[str(label)]["precision"])
        among = [label in best[image] for image in np.flatnonzero(labels == label)]
        assert of_class["top5"] == (pytest.approx(np.mean(among)) if among else None)


def test_zero_shot_is_the_argmax_over_the_mean_prompts(model, embedded, tmp_path: Path) -> None:
    labels = [0, 1, 2, 0, 1, 2, 2, 1, 0, 1, 2]
    folder = write_benchmark(tmp_path / "val", labels, ["cat", "red dog", "house"])
    reference = write_pool(tmp_path / "reference", 2, 9, labels=True)
    names = ("cat", "red dog")
    shots = Shots(FEW_SHOT, reference, embedded(reference), names)
    metrics = evaluate(PARAMETERS, model, [load_benchmark(folder)], shots, names, 2, 0.2, tmp_path / "out")
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
    # CLIP_benchmark's acc5 is undefined too for three classes.
    assert "zero_shot/val/top5" not in metrics
    of_classes = pq.read_table(tmp_path / "out" / "classes" / "val.parquet").to_pydict()
    assert of_classes["class"] == ["cat", "red dog", "house"]
    assert of_classes["images"] == [3, 4, 4]
    assert np.mean(of_classes["top1"]) == pytest.approx(metrics["zero_shot/val/mean_per_class_recall"])
    # The reference has no class "house".
    assert metrics["few_shot/val/refused"] is True
    assert not any(column.endswith("_shot") for column in table.column_names)


@pytest.mark.parametrize(
    ("tower", "value"), [("visual.proj", torch.nan), ("visual.proj", 0), ("text_projection", torch.inf)]
)
def test_a_model_with_features_that_are_not_finite_or_zero_is_refused(
    model_folder: Path, tmp_path: Path, tower: str, value: float
) -> None:
    broken = load(model_folder)
    broken.clip.get_parameter(tower).data.fill_(value)
    folder = write_benchmark(tmp_path / "val", [0, 1, 0, 1], ["cat", "dog"])
    parameters = EvaluateParameters(batch_size=4, few_shot=FewShotParameters([], 1, 1.0, 0))
    kind = "image" if tower.startswith("visual") else "class"
    with pytest.raises(SimgapError, match=rf"val: \d of \d {kind} features are zero or not finite"):
        evaluate(parameters, broken, [load_benchmark(folder)], None, (), 1, 0.2, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_top5_of_a_benchmark_with_five_classes(model, tmp_path: Path) -> None:
    folder = write_benchmark(tmp_path / "val", [0, 1, 2, 3, 4, 0], ["cat", "dog", "eel", "fox", "hen"])
    parameters = EvaluateParameters(batch_size=4, few_shot=FewShotParameters([], 1, 1.0, 0))
    metrics = evaluate(parameters, model, [load_benchmark(folder)], None, (), 1, 0.2, tmp_path / "out")
    assert metrics["zero_shot/val/top5"] == 1.0
    assert not any(name.startswith("few_shot") for name in metrics)


def test_few_shot_and_broken_images(model, embedded, tmp_path: Path) -> None:
    folder = write_benchmark(tmp_path / "val", [0, 1, 0, 1], ["dog", "cat"])
    write_tar(folder / "test" / "1.tar", [("x.jpg", b"broken"), ("x.cls", b"0")])
    (folder / "test" / "nshards.txt").write_text("2")
    reference = write_pool(tmp_path / "reference", 2, 9, labels=True)
    names = ("cat", "dog")
    shots = Shots(FEW_SHOT, reference, embedded(reference), names)
    metrics = evaluate(PARAMETERS, model, [load_benchmark(folder)], shots, names, 2, 0.2, tmp_path / "out")
    assert metrics["zero_shot/val/read"] == 5
    assert metrics["zero_shot/val/kept"] == 4
    assert metrics["zero_shot/val/dropped/broken_image"] == 1
    table = pq.read_table(tmp_path / "out" / "val.parquet")
    for count in (1, 3):
        of_draws = np.mean(table.column(f"correct_{count}_shot").to_pylist(), axis=0)
        assert len(of_draws) == 2
        assert metrics[f"few_shot/val/top1_{count}_shot"] == np.mean(of_draws)
        assert metrics[f"few_shot/val/top1_{count}_shot/spread"] == pytest.approx(np.std(of_draws, ddof=1))
    assert metrics["few_shot/val/refused"] is False


def test_bad_benchmarks_and_references(model, embedded, tmp_path: Path) -> None:
    folder = write_benchmark(tmp_path / "val", [0, 5], ["dog", "cat"])
    with pytest.raises(SimgapError, match="label 5 is outside the class list of 2"):
        evaluate(PARAMETERS, model, [load_benchmark(folder)], None, ("cat", "dog"), 1, 0.2, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    reference = write_pool(tmp_path / "reference", 1, 9, labels=True)
    many = FewShotParameters(shots=[2, 5], draws=1, ridge=0.5, seed=0)
    with pytest.raises(
        SimgapError, match=r"evaluate\.few_shot\.shots: 5 is too many, .* only 4 .* class 'dog'; choose at most 4"
    ):
        Shots(many, reference, embedded(reference), ("cat", "dog"))


def test_a_bad_label_is_refused_before_its_image_is_embedded(model, tmp_path: Path, monkeypatch) -> None:
    folder = write_benchmark(tmp_path / "val", [0, 5], ["dog", "cat"])
    monkeypatch.setattr(model.clip, "encode_image", lambda _: pytest.fail("a forward pass"))
    with pytest.raises(SimgapError, match=r"0\.tar: [^\n]*: label 5 is outside the class list of 2 names"):
        evaluate(PARAMETERS, model, [load_benchmark(folder)], None, ("cat", "dog"), 1, 0.2, tmp_path / "out")


def test_a_benchmark_of_broken_images_is_refused(model, tmp_path: Path) -> None:
    folder = write_benchmark(tmp_path / "val", [0, 1], ["dog", "cat"])
    broken = [
        (f"x{index}{suffix}", content) for index in (0, 1) for suffix, content in ((".jpg", b"x"), (".cls", b"0"))
    ]
    write_tar(folder / "test" / "1.tar", broken)
    (folder / "test" / "nshards.txt").write_text("2")
    benchmarks = [load_benchmark(folder)]
    evaluate(PARAMETERS, model, benchmarks, None, (), 1, 0.5, tmp_path / "out")
    with pytest.raises(SimgapError, match=r"2 of 4 samples were dropped .*drop_limit 0\.4"):
        evaluate(PARAMETERS, model, benchmarks, None, (), 1, 0.4, tmp_path / "out")
    write_tar(folder / "test" / "0.tar", broken)
    with pytest.raises(SimgapError, match="none of its 4 samples could be embedded"):
        evaluate(PARAMETERS, model, [load_benchmark(folder)], None, (), 1, 1.0, tmp_path / "out")


@pytest.mark.parametrize("damage", ["no metadata", "no label", "cut off", "more classes"])
def test_a_reference_with_damaged_metadata_is_refused_in_one_line(embedded, tmp_path: Path, damage: str) -> None:
    reference = write_pool(tmp_path / "reference", 1, 9, labels=True)
    folder = embedded(reference)
    part = folder / "metadata" / "metadata_0000.parquet"
    classes = ("cat",) if damage == "more classes" else ("cat", "dog")
    if damage == "no metadata":
        part.unlink()
    elif damage == "no label":
        pq.write_table(pq.read_table(part).drop_columns(["label"]), part)
    elif damage == "cut off":
        part.write_bytes(part.read_bytes()[:50])
    message = {
        "no metadata": "the metadata have 0 rows, but the vectors have 9; embed or import the set again",
        "no label": r"metadata_0000\.parquet: the table has no column label; embed or import the set again",
        "cut off": r"metadata_0000\.parquet: the file cannot be read as a Parquet table [^\n]*; embed or import the set again",
        "more classes": "label 1 is outside the class list, which has 1 names; embed the reference again",
    }[damage]
    with pytest.raises(SimgapError, match=rf"^[^\n]*{message}$"):
        Shots(FEW_SHOT, reference, folder, classes)


@pytest.mark.parametrize("dim", [5, 12, 30])
def test_ridge_regression_agrees_with_scikit_learn(dim: int) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(12, dim)).astype(np.float32)
    queries = random.normal(size=(4, dim)).astype(np.float32)
    labels = np.arange(12) % 3
    wide = features.astype(np.float64)
    penalty = 0.7 * ((wide - wide.mean(axis=0)) ** 2).sum(axis=1).mean()
    targets = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
    expected = Ridge(alpha=penalty).fit(wide, targets).predict(queries.astype(np.float64))
    assert np.allclose(fit_probe(features, labels, 3, 0.7).scores(queries), expected)


def test_shots_are_seeded_balanced_and_nested(embedded, tmp_path: Path) -> None:
    reference = write_pool(tmp_path / "reference", 3, 12, labels=True)
    folder = embedded(reference)
    parameters = FewShotParameters(shots=[2, 5], draws=3, ridge=0.5, seed=0)
    shots = Shots(parameters, reference, folder, ("cat", "dog"))
    again = Shots(parameters, reference, folder, ("cat", "dog"))
    draws = []
    for draw in range(3):
        few, more = (shots.chosen(draw, count) for count in (2, 5))
        assert np.bincount(shots.labels[few]).tolist() == [2, 2]
        assert np.bincount(shots.labels[more]).tolist() == [5, 5]
        assert set(few) <= set(more)
        assert np.array_equal(more, again.chosen(draw, 5))
        draws.append(set(more))
    assert draws[0] != draws[1] != draws[2]
    assert set().union(*draws) == set(range(len(shots.rows)))


def test_fewer_draws_are_a_subset_of_more(embedded, tmp_path: Path) -> None:
    reference = write_pool(tmp_path / "reference", 2, 12, labels=True)
    folder = embedded(reference)
    few, more = (
        Shots(FewShotParameters(shots=[2], draws=draws, ridge=0.5, seed=0), reference, folder, ("cat", "dog"))
        for draws in (2, 4)
    )
    for draw in range(2):
        assert np.array_equal(few.rows[few.chosen(draw, 2)], more.rows[more.chosen(draw, 2)])
    assert len(more.rows) > len(few.rows)


def test_shots_depend_on_draw_and_seed() -> None:
    labels = np.arange(60) % 4
    assert np.array_equal(shot_order(labels, (0, 1)), shot_order(labels, (0, 1)))
    assert not np.array_equal(shot_order(labels, (0, 0)), shot_order(labels, (0, 1)))
    assert not np.array_equal(shot_order(labels, (0, 0)), shot_order(labels, (1, 0)))


def test_shots_are_streamed_in_their_order_and_never_broken(embedded, tmp_path: Path) -> None:
    members = []
    for index in range(12):
        image = b"broken" if index in (0, 1, 4, 7) else jpeg(index)
        members += [(f"{index:02d}.jpg", image), (f"{index:02d}.cls", str(index % 2).encode())]
    write_tar(tmp_path / "reference" / "0.tar", members)
    folder = embedded(tmp_path / "reference")
    parameters = FewShotParameters(shots=[4], draws=1, ridge=0.5, seed=0)
    shots = Shots(parameters, tmp_path / "reference", folder, ("cat", "dog"))
    samples = list(shots.samples())
    assert [sample.key for sample in samples] == ["02", "03", "05", "06", "08", "09", "10", "11"]
    assert [sample.label for sample in samples] == shots.labels.tolist()
    write_tar(tmp_path / "reference" / "0.tar", members[:8])
    with pytest.raises(SimgapError, match="sample '05' is no longer there; embed the reference again"):
        list(shots.samples())


def test_a_truncated_benchmark_is_not_evaluated(model, tmp_path: Path) -> None:
    folder = write_benchmark(tmp_path / "val", [0, 1, 0, 1], ["cat", "dog"])
    shard = folder / "test" / "0.tar"
    shard.write_bytes(shard.read_bytes()[: 2 * 2560])
    with pytest.raises(SimgapError, match="because it must be complete"):
        evaluate(PARAMETERS, model, [load_benchmark(folder)], None, ("cat", "dog"), 1, 0.2, tmp_path / "out")


def test_classes_of_a_benchmark_map_to_the_reference() -> None:
    reference = ("cat", "dog", "wolf")

    def mapped(names: tuple[str, ...], given: tuple[tuple[int, ...], ...] | None):
        return map_classes(Benchmark("val", Path("val"), names, ("a {c}",), (), given), reference)

    assert mapped(("dog", "cat"), None) == ((1,), (0,))
    assert mapped(("dog", "eel"), None) is None
    assert mapped(("dog", "eel"), ((1,), ())) is None
    # If a name occurs twice, only an explicit mapping says which class is meant.
    assert mapped(("dog", "cat", "dog"), None) is None
    assert mapped(("dog", "cat", "dog"), ((1,), (0,), (2,))) == ((1,), (0,), (2,))
    doubled = Benchmark("val", Path("val"), ("dog", "cat"), ("a {c}",), (), None)
    assert map_classes(doubled, ("dog", "cat", "dog")) is None
    assert map_classes(doubled, ("wolf", "cat", "wolf", "dog")) == ((3,), (1,))
    assert mapped(("canine", "cat"), ((1, 2), (0,))) == ((1, 2), (0,))
    with pytest.raises(
        SimgapError, match=r"val/reference_classes\.json: class 3 does not exist; .* the reference has 3 classes"
    ):
        mapped(("canine", "cat"), ((1, 3), (0,)))
    scores = np.array([[0.1, 0.2, 0.9]])
    assert benchmark_scores(scores, ((1, 2), (0,))).tolist() == [[0.9, 0.1]]
