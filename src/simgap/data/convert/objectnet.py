"""Find the images of the classes that ObjectNet shares with ImageNet.

Class names and the mapping to ImageNet's classes come from the downloaded files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simgap.core.errors import SimgapError
from simgap.core.files import read_json
from simgap.data.benchmarks import read_lines
from simgap.data.convert.image_set import ImageSet
from simgap.data.convert.imagenet import templates
from simgap.data.convert.public import list_known_images

SHARED_CLASSES = 113
SHARED_IMAGES = 18_574
# The images have a red border of one pixel. Published evaluations cut off two pixels on every side, so this module cuts off
# two pixels too.
BORDER = 2


def _mapping(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise SimgapError(f"{path}: should hold a JSON object; take the file from ObjectNet's download")
    return content


def _imagenet_classes(mappings: Path) -> dict[str, list[int]]:
    """Return the ImageNet class indices that ObjectNet's mapping lists for each class name.

    One file lists the class names in the order of the ILSVRC2012 ids. Another file maps each class index to an ILSVRC2012 id.
    Indices and ids count from 0.
    """
    names = read_lines(mappings / "imagenet_to_label_2012_v2", "a name for each ImageNet class")
    path = mappings / "pytorch_to_imagenet_2012_id.json"
    ids = _mapping(path)
    numbers = sorted(str(number) for number in range(len(names)))
    if sorted(ids) != numbers or sorted(map(str, ids.values())) != numbers:
        raise SimgapError(
            f"{path}: should map each class from 0 to {len(names) - 1} to its own id from 0 to {len(names) - 1}"
        )
    classes: dict[str, list[int]] = {}
    for index, number in ids.items():
        classes.setdefault(names[int(number)], []).append(int(index))
    return classes


def _shared_classes(mappings: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return the classes that ObjectNet shares with ImageNet, sorted by class folder.

    Returns:
        For each shared class, its folder, its name in ObjectNet, and its ImageNet class indices.

    Raises:
        SimgapError: One of the four mapping files is incomplete, or the files contradict each other.
    """
    folders = {name: folder for folder, name in _mapping(mappings / "folder_to_objectnet_label.json").items()}
    path = mappings / "objectnet_to_imagenet_1k.json"
    classes = _imagenet_classes(mappings)
    shared = []
    for name, imagenet in _mapping(path).items():
        parts = [part.strip() for part in str(imagenet).split(";")]
        if name not in folders or any(part not in classes for part in parts):
            raise SimgapError(
                f"{path}: {name!r} ({imagenet}) is not in the other mapping files; take all four files from one download"
            )
        shared.append((folders[name], name, tuple(sorted({index for part in parts for index in classes[part]}))))
    if len(shared) != SHARED_CLASSES:
        raise SimgapError(
            f"{path}: maps {len(shared)} classes; it should map the {SHARED_CLASSES} that ObjectNet shares with ImageNet"
        )
    return sorted(shared)


def find_objectnet(source: Path, *, allow_incomplete: bool) -> ImageSet:
    """Find the images of the classes that ObjectNet shares with ImageNet.

    Args:
        source: Folder with the subfolders `images` and `mappings` of the download.
        allow_incomplete: Whether class folders and images may be missing.

    Raises:
        SimgapError: Class folders, images or mapping files are missing. Or there are unknown folders, or more images than
            ObjectNet has.
    """
    mappings = source / "mappings"
    shared = _shared_classes(mappings)
    others = _mapping(mappings / "folder_to_objectnet_label.json")
    images, ignored = list_known_images(
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
