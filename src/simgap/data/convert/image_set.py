"""Find labelled images on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.progress import progress
from simgap.data.shards import IMAGE_SUFFIXES


@dataclass(frozen=True)
class ImageSet:
    """The images and classes that a converter found.

    Attributes:
        root: Base folder of the image names.
        images: Name and label of every image. The name is the path of the file relative to `root`.
        ignored: Number of files and folders that the converter ignored.
        classnames: Name of each class, in the order of the labels.
        templates: Prompts in which `{c}` stands for the class name.
        reference_classes: For each class of the set, the indices of the same class in the reference. None means that classes
            with equal names are the same class.
        border: Number of pixels to cut off on every side of every image.
    """

    root: Path
    images: list[tuple[str, int]]
    ignored: int
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    reference_classes: tuple[tuple[int, ...], ...] | None
    border: int = 0


def natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key for names. Numbers in names sort by value, so 2 precedes 10. Different names have different keys."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name


def is_image(name: str) -> bool:
    """Return whether a file name is visible and has the suffix of an image, in lower or upper case."""
    path = Path(name)
    return not path.name.startswith(".") and path.suffix.lower().lstrip(".") in IMAGE_SUFFIXES


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def class_folders(root: Path) -> tuple[list[str], list[str]]:
    """List the class folders of a tree.

    Hidden folders are not class folders.

    Returns:
        A pair. The first part lists the names of the class folders in natural order. The second part lists the names of all
        other files and folders in `root`.

    Raises:
        SimgapError: `root` is not a folder.
    """
    if not root.is_dir():
        raise SimgapError(f"{root}: no such folder; it should hold a folder for each class")
    entries = _entries(root)
    folders = {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    return sorted(folders, key=natural_order), [entry.name for entry in entries if entry.name not in folders]


def _images_of(root: Path, folder: str, recursive: bool, above: tuple[Path, ...] = ()) -> tuple[list[str], int]:
    place = (root / folder).resolve()
    if place in above:
        raise SimgapError(f"{root / folder}: is a link to {place}, which contains the link; remove the link")
    entries = sorted(_entries(root / folder), key=lambda entry: natural_order(entry.name))
    names = [f"{folder}/{entry.name}" for entry in entries if is_image(entry.name) and entry.is_file()]
    inner = [entry.name for entry in entries if recursive and entry.is_dir() and not entry.name.startswith(".")]
    ignored = len(entries) - len(names) - len(inner)
    for name in inner:
        more, others = _images_of(root, f"{folder}/{name}", recursive, (*above, place))
        names += more
        ignored += others
    return names, ignored


def images_in(
    root: Path, folders: Sequence[str | None], *, recursive: bool = False
) -> tuple[list[tuple[str, int]], int]:
    """List the images in class folders.

    Args:
        root: Folder that contains the class folders.
        folders: For each label, the name of its class folder. None means that the class has no folder.
        recursive: Whether the function also searches subfolders of class folders and follows links to folders. The images of
            a subfolder come after the images of its parent folder.

    Returns:
        A pair. The first part lists the name and the label of each image, sorted by label and then in natural order. The second
        part is the number of files and folders that were ignored.

    Raises:
        SimgapError: A link leads to a folder that contains the link.
    """
    images: list[tuple[str, int]] = []
    ignored = 0
    for label, folder in enumerate(progress(folders, len(folders), f"list {root.name}", "class")):
        if folder is not None:
            names, others = _images_of(root, folder, recursive)
            images += [(name, label) for name in names]
            ignored += others
    return images, ignored
