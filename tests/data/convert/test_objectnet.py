"""A small ObjectNet: five class folders, of which three are ImageNet classes, and the four mapping files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import convert, refused, write_tree, written

from simgap.data.benchmarks import load_benchmark
from simgap.data.convert import objectnet
from simgap.data.convert.imagenet import templates

FOLDERS = {"t-shirt": "T-shirt", "air_freshener": "Air freshener", "chair": "Chair", "banana": "Banana", "fork": "Fork"}
# The names of five ImageNet classes. Their ids are in another order than their indices.
LABELS = ["banana", "rocking chair, rocker", "tench, Tinca tinca", "jersey, T-shirt, tee shirt", "barber chair"]
IDS = {"0": 2, "1": 4, "2": 3, "3": 1, "4": 0}
SHARED = {
    "T-shirt": "jersey, T-shirt, tee shirt",
    "Chair": "rocking chair, rocker; barber chair",
    "Banana": "banana",
}


def photograph(seed: int, size: tuple[int, int] = (9, 8)) -> np.ndarray:
    """Draw random pixels inside a red border of one pixel."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    pixels[[0, -1]] = pixels[:, [0, -1]] = (255, 0, 0)
    return pixels


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(objectnet, "SHARED_CLASSES", 3)
    monkeypatch.setattr(objectnet, "SHARED_IMAGES", 6)
    files = {
        f"images/{folder}/{n}.png": png(photograph(10 * k + n)) for k, folder in enumerate(FOLDERS) for n in (0, 1)
    }
    files |= {
        "README": b"read me",
        "LICENSE": b"licence",
        "mappings/folder_to_objectnet_label.json": json.dumps(FOLDERS).encode(),
        "mappings/objectnet_to_imagenet_1k.json": json.dumps(SHARED).encode(),
        "mappings/pytorch_to_imagenet_2012_id.json": json.dumps(IDS).encode(),
        "mappings/imagenet_to_label_2012_v2": "".join(f"{label}\n" for label in LABELS).encode(),
    }
    return write_tree(tmp_path / "objectnet-1.0", files)


def test_only_with_its_licence(download: Path, tmp_path: Path) -> None:
    line = refused("objectnet", download, tmp_path / "objectnet")
    assert line.startswith(
        "error: --accept-licence: is not given; ObjectNet's licence forbids using it to tune a model"
    )


def test_the_name_that_params_know_it_by(download: Path, tmp_path: Path) -> None:
    line = refused("objectnet", download, tmp_path / "onet", "--accept-licence")
    assert "onet: must be called objectnet" in line


def test_shared_classes_under_its_own_names(download: Path, tmp_path: Path) -> None:
    result = convert("objectnet", download, tmp_path / "objectnet", "--accept-licence")
    assert result.output == f"{tmp_path / 'objectnet'}: 6 images of 3 classes\n"
    benchmark = load_benchmark(tmp_path / "objectnet")
    assert benchmark.classnames == ("Banana", "Chair", "T-shirt")
    assert benchmark.templates == templates()
    naive = [
        [index for index in range(5) if LABELS[IDS[str(index)]] in SHARED[name].split("; ")]
        for name in benchmark.classnames
    ]
    assert [list(entry) for entry in benchmark.reference_classes] == naive
    assert [label for label, _ in written(tmp_path / "objectnet")] == [0, 0, 1, 1, 2, 2]


def test_two_pixels_of_border_are_cut_off_and_the_rest_is_the_same(download: Path, tmp_path: Path) -> None:
    convert("objectnet", download, tmp_path / "objectnet", "--accept-licence")
    expected = [
        photograph(10 * list(FOLDERS).index(name) + n) for name in ("banana", "chair", "t-shirt") for n in (0, 1)
    ]
    for (_, image), pixels in zip(written(tmp_path / "objectnet"), expected, strict=True):
        assert image.startswith(b"\x89PNG")
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image))), pixels[2:-2, 2:-2])


def test_an_image_that_is_all_border(download: Path, tmp_path: Path) -> None:
    (download / "images" / "chair" / "1.png").write_bytes(png(photograph(0, (9, 4))))
    line = refused("objectnet", download, tmp_path / "objectnet", "--accept-licence")
    assert f"{download / 'images' / 'chair' / '1.png'}: too_narrow; 1 of 6 images" in line


def test_a_folder_that_is_not_objectnet_s(download: Path, tmp_path: Path) -> None:
    (download / "images" / "zebra").mkdir()
    line = refused("objectnet", download, tmp_path / "objectnet", "--accept-licence")
    assert f"{download / 'images' / 'zebra'}: is not a class folder of ObjectNet" in line


def put(file: str, content: object):
    return lambda folder: (folder / "mappings" / file).write_text(
        content if isinstance(content, str) else json.dumps(content)
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "mappings" / "objectnet_to_imagenet_1k.json").unlink(), "1k.json: no such file"),
        (
            put("objectnet_to_imagenet_1k.json", {"Banana": "banana"}),
            "maps 1 classes; it should map the 3 that ObjectNet shares with ImageNet",
        ),
        (
            put("objectnet_to_imagenet_1k.json", {**SHARED, "Fork": "fork"}),
            "'Fork' (fork) is not in the other mapping files",
        ),
        (
            put("objectnet_to_imagenet_1k.json", {**SHARED, "Pan": "banana"}),
            "'Pan' (banana) is not in the other mapping files",
        ),
        (put("objectnet_to_imagenet_1k.json", ["Banana"]), "should hold a JSON object"),
        (put("pytorch_to_imagenet_2012_id.json", {**IDS, "0": 5}), "should map each class from 0 to 4 to its own id"),
        (put("pytorch_to_imagenet_2012_id.json", {"0": 0}), "should map each class from 0 to 4 to its own id"),
        (put("imagenet_to_label_2012_v2", ""), "imagenet_to_label_2012_v2: is empty"),
    ],
)
def test_mappings_that_do_not_fit(download: Path, tmp_path: Path, change, words: str) -> None:
    change(download)
    assert words in refused("objectnet", download, tmp_path / "objectnet", "--accept-licence")


def test_known_sizes() -> None:
    assert (objectnet.SHARED_CLASSES, objectnet.SHARED_IMAGES, objectnet.BORDER) == (113, 18_574, 2)
