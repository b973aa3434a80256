"""ObjectNet: the classes that it shares with ImageNet, under its own names and its own mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simgap.core.errors import SimgapError
from simgap.core.files import read_json
from simgap.data.benchmarks import read_lines
from simgap.data.convert.image_set import ImageSet
from simgap.data.convert.imagenet import templates
from simgap.data.convert.public import known_images

SHARED_CLASSES = 113
SHARED_IMAGES = 18_574
# One pixel of red, by which the authors mark their images, and one more, as others cut who report accuracies on it.
BORDER = 2


def _mapping(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise SimgapError(f"{path}: should hold a mapping; take the file from ObjectNet's download")
    return content


def _imagenet_classes(mappings: Path) -> dict[str, list[int]]:
    """Give the ImageNet classes of each name that ObjectNet's mapping uses for one.

    The names stand in the order of ILSVRC2012's ids; another file gives the id of each class. Both count from 0.
    """
    names = read_lines(mappings / "imagenet_to_label_2012_v2", "a name for each ImageNet class")
    path = mappings / "pytorch_to_imagenet_2012_id.json"
    ids = _mapping(path)
    numbers = sorted(str(number) for number in range(len(names)))
    if sorted(ids) != numbers or sorted(map(str, ids.values())) != numbers:
        raise SimgapError(
            f"{path}: should give each class from 0 to {len(names) - 1} one id from 0 to {len(names) - 1}"
        )
    classes: dict[str, list[int]] = {}
    for index, number in ids.items():
        classes.setdefault(names[int(number)], []).append(int(index))
    return classes


def _shared_classes(mappings: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """Give folder, ObjectNet's name and ImageNet classes of every shared class, in the order of the folders' names.

    Raises:
        SimgapError: the four files of the mapping are incomplete or contradict each other.
    """
    folders = {name: folder for folder, name in _mapping(mappings / "folder_to_objectnet_label.json").items()}
    path = mappings / "objectnet_to_imagenet_1k.json"
    classes = _imagenet_classes(mappings)
    shared = []
    for name, imagenet in _mapping(path).items():
        parts = [part.strip() for part in str(imagenet).split(";")]
        if name not in folders or any(part not in classes for part in parts):
            raise SimgapError(
                f"{path}: {name!r} ({imagenet}) is not in the other files of mappings; take all four from one download"
            )
        shared.append((folders[name], name, tuple(sorted({index for part in parts for index in classes[part]}))))
    if len(shared) != SHARED_CLASSES:
        raise SimgapError(f"{path}: maps {len(shared)} classes; ObjectNet shares {SHARED_CLASSES} with ImageNet")
    return sorted(shared)


def find_objectnet(source: Path, *, allow_incomplete: bool) -> ImageSet:
    """Find ObjectNet's images of the classes that it shares with ImageNet; `source` holds `images` and `mappings`.

    Raises:
        SimgapError: images, class folders or files of the mapping are missing, or there are others.
    """
    mappings = source / "mappings"
    shared = _shared_classes(mappings)
    others = _mapping(mappings / "folder_to_objectnet_label.json")
    images, ignored = known_images(
        "ObjectNet",
        source / "images",
        [folder for folder, _, _ in shared],
        SHARED_IMAGES,
        others=others,
        allow_incomplete=allow_incomplete,
    )
    names = tuple(name for _, name, _ in shared)
    classes = tuple(indices for _, _, indices in shared)
    return ImageSet(source / "images", images, ignored, names, templates(), classes, BORDER)
