"""Datasets with ImageNet's classes: trees with the folders of the real ones, and at most one image in each."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from conftest import jpeg
from trees import convert, refused, write_tree, written

from simgap.data.benchmarks import load_benchmark
from simgap.data.convert import write
from simgap.data.convert.imagenet import PUBLIC, classnames, templates, wnids
from simgap.data.shards import Accounting, find_shards, read_shard


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch):
    """Return a function that sets the known number of images of a dataset."""

    def change(name: str, images: int) -> None:
        monkeypatch.setitem(PUBLIC, name, replace(PUBLIC[name], images=images))

    return change


def synsets(letter: str) -> list[str]:
    return (resources.files("timm.data") / "_info" / f"imagenet_{letter}_synsets.txt").read_text().split()


def tree_of(root: Path, folders: list[str], suffix: str) -> Path:
    """Write one image for each class. The images of the first ten classes differ."""
    return write_tree(root, {f"{name}/{name}_7{suffix}": jpeg(min(n, 10)) for n, name in enumerate(folders)})


def test_names_and_classes_belong_together() -> None:
    from timm.data import ImageNetInfo

    lemmas = ImageNetInfo().label_descriptions()
    assert len(classnames()) == len(wnids()) == 1000
    # OpenAI renamed some classes. The names that it kept show that both lists have the same order.
    assert sum(name in text for name, text in zip(classnames(), lemmas, strict=True)) > 700
    assert sum(name in text for name, text in zip(classnames()[1:], lemmas[:-1], strict=True)) < 10
    assert (wnids()[0], classnames()[0]) == ("n01440764", "tench")
    assert len(set(classnames())) == 998
    assert len(templates()) == 80
    assert templates()[0] == "a bad photo of a {c}."


@pytest.mark.parametrize("name", ["imagenet-val", "imagenet-sketch"])
def test_a_set_of_all_classes(name: str, tmp_path: Path, sized) -> None:
    sized(name, 1000)
    tree = tree_of(tmp_path / "tree", list(wnids()), ".JPEG")
    result = convert(name, tree, tmp_path / "out")
    assert result.output == f"{tmp_path / 'out'}: 1000 images of 1000 classes\n"
    benchmark = load_benchmark(tmp_path / "out")
    assert benchmark.classnames == classnames()
    assert benchmark.templates == templates()
    # Class names alone do not identify a class: two names each stand for two classes.
    assert benchmark.reference_classes == tuple((index,) for index in range(1000))
    assert written(tmp_path / "out") == [(label, jpeg(min(label, 10))) for label in range(1000)]


def test_v2_by_numbers(tmp_path: Path, sized) -> None:
    sized("imagenet-v2", 1000)
    tree = tree_of(tmp_path / "imagenetv2-matched-frequency-format-val", [str(n) for n in range(1000)], ".jpeg")
    assert convert("imagenet-v2", tree, tmp_path / "out").exit_code == 0
    assert load_benchmark(tmp_path / "out").classnames == classnames()
    assert written(tmp_path / "out") == [(label, jpeg(min(label, 10))) for label in range(1000)]


@pytest.mark.parametrize("letter", ["a", "r"])
def test_a_set_of_200_classes(letter: str, tmp_path: Path, sized) -> None:
    sized(f"imagenet-{letter}", 200)
    tree = tree_of(tmp_path / "tree", synsets(letter), ".jpg")
    (tree / "README.txt").write_text("read me")
    result = convert(f"imagenet-{letter}", tree, tmp_path / "out")
    assert result.output == f"{tmp_path / 'out'}: 200 images of 200 classes; 1 other files or folders ignored\n"
    benchmark = load_benchmark(tmp_path / "out")
    indices = [sorted(wnids()).index(wnid) for wnid in synsets(letter)]
    assert indices == sorted(indices)
    assert benchmark.reference_classes == tuple((index,) for index in indices)
    assert benchmark.classnames == tuple(classnames()[index] for index in indices)
    assert written(tmp_path / "out") == [(label, jpeg(min(label, 10))) for label in range(200)]


def test_the_reference_in_mixed_order_with_captions(tmp_path: Path, sized, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "SHARD_IMAGES", 300)
    sized("imagenet-train", 1000)
    tree = tree_of(tmp_path / "tree", list(wnids()), ".JPEG")
    assert convert("imagenet-train", tree, tmp_path / "out").exit_code == 0
    shards = find_shards(tmp_path / "out")
    assert [path.name for path in shards] == ["00000.tar", "00001.tar", "00002.tar", "00003.tar"]
    assert (tmp_path / "out" / "classnames.txt").read_text().splitlines() == list(classnames())
    accounting = Accounting()
    samples = [sample for path in shards for sample in read_shard(path, accounting, caption=True, label=True)]
    assert accounting.metrics(1000) == {"read": 1000, "kept": 1000}
    names = sorted(
        (f"{wnid}/{wnid}_7.JPEG" for wnid in wnids()), key=lambda name: hashlib.sha256(name.encode()).digest()
    )
    assert [sample.label for sample in samples] == [wnids().index(name.split("/")[0]) for name in names]
    assert len({sample.label // 250 for sample in samples[:20]}) == 4
    for sample in samples:
        assert sample.caption == f"a photo of a {classnames()[sample.label]}"
        assert sample.image == jpeg(min(sample.label, 10))


def test_the_reference_s_json_says_where_an_image_comes_from(tmp_path: Path, sized) -> None:
    import tarfile

    sized("imagenet-train", 1)
    tree = write_tree(tmp_path / "tree", {"n01440764/n01440764_10026.JPEG": jpeg(0)})
    assert convert("imagenet-train", tree, tmp_path / "out", "--allow-incomplete").exit_code == 0
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        names = tar.getnames()
        content = json.load(tar.extractfile(names[2]))  # type: ignore[arg-type]
    assert names == [f"000000000.{suffix}" for suffix in ("jpeg", "txt", "json", "cls")]
    expected = {"key": "000000000", "caption": "a photo of a tench", "path": "n01440764/n01440764_10026.JPEG"}
    assert content == expected


@pytest.fixture
def tree_a(tmp_path: Path, sized) -> Path:
    """Write an ImageNet-A with one image for each of its 200 classes."""
    sized("imagenet-a", 200)
    return tree_of(tmp_path / "tree", synsets("a"), ".jpg")


def test_an_image_too_few_or_too_many(tmp_path: Path, tree_a: Path) -> None:
    first = synsets("a")[0]
    (tree_a / first / "second.jpg").write_bytes(jpeg(1))
    for options in ([], ["--allow-incomplete"]):
        assert f"{tree_a}: holds 201 images; ImageNet-A has 200" in refused(
            "imagenet-a", tree_a, tmp_path / "out", *options
        )
    (tree_a / first / "second.jpg").unlink()
    (tree_a / first / f"{first}_7.jpg").unlink()
    line = refused("imagenet-a", tree_a, tmp_path / "out")
    assert f"{tree_a}: holds 199 images; ImageNet-A has 200; --allow-incomplete accepts fewer" in line
    result = convert("imagenet-a", tree_a, tmp_path / "out", "--allow-incomplete")
    assert result.output == f"{tmp_path / 'out'}: 199 images of 200 classes\n"
    assert [label for label, _ in written(tmp_path / "out")] == list(range(1, 200))


def test_a_missing_class_keeps_the_labels_of_the_others(tmp_path: Path, tree_a: Path) -> None:
    missing = synsets("a")[3]
    shutil.rmtree(tree_a / missing)
    line = refused("imagenet-a", tree_a, tmp_path / "out")
    assert f"{tree_a}: lacks 1 of the 200 class folders of ImageNet-A, {missing} first" in line
    convert("imagenet-a", tree_a, tmp_path / "out", "--allow-incomplete")
    assert [label for label, _ in written(tmp_path / "out")] == [label for label in range(200) if label != 3]
    assert len(load_benchmark(tmp_path / "out").classnames) == 200


def test_images_in_other_places_than_the_data_set_has_them_are_none_of_it(tmp_path: Path, tree_a: Path) -> None:
    wnid = synsets("a")[0]
    (image,) = (tree_a / wnid).iterdir()
    (tree_a / wnid / "images").mkdir()
    image.rename(tree_a / wnid / "images" / image.name)
    assert f"{tree_a}: holds 199 images; ImageNet-A has 200" in refused("imagenet-a", tree_a, tmp_path / "out")


def test_another_data_set(tmp_path: Path, tree_a: Path) -> None:
    other = next(wnid for wnid in wnids() if wnid not in synsets("a"))
    (tree_a / other).mkdir()
    line = refused("imagenet-a", tree_a, tmp_path / "out")
    assert f"{tree_a / other}: is not a class folder of ImageNet-A" in line
    line = refused("imagenet-v2", tree_a, tmp_path / "out")
    assert f"{tree_a}: holds no class folder of ImageNet-V2; it should hold 0 to 999, unpacked" in line
    line = refused("imagenet-a", tree_a.parent, tmp_path.parent / f"{tmp_path.name}-out")
    assert "holds no class folder of ImageNet-A; it should hold n01498041 to " in line


def test_a_flat_validation_set(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "val", {f"ILSVRC2012_val_0000000{n}.JPEG": jpeg(n) for n in range(3)})
    line = refused("imagenet-val", tree, tmp_path / "out")
    assert "holds no class folder of ImageNet-Val; its images should be sorted into class folders" in line


def test_folders_without_images_are_no_data_set(tmp_path: Path, tree_a: Path) -> None:
    for image in tree_a.rglob("*.jpg"):
        image.unlink()
    line = refused("imagenet-a", tree_a, tmp_path / "out", "--allow-incomplete")
    assert line.endswith("holds 0 images; ImageNet-A has 200")


def test_known_sizes() -> None:
    assert {name: public.images for name, public in PUBLIC.items()} == {
        "imagenet-train": 1_281_167,
        "imagenet-val": 50_000,
        "imagenet-v2": 10_000,
        "imagenet-sketch": 50_889,
        "imagenet-a": 7_500,
        "imagenet-r": 30_000,
    }
