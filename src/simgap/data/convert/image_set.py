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
        root: folder that the names of the images are relative to.
        images: name and label of every image.
        ignored: number of files and folders that are not images of the set.
        classnames: name of each class, in the order of the labels.
        templates: prompts in which `{c}` stands for the class name.
        reference_classes: for each class, the indices of the same class in the reference. None if classes correspond by
            equal names.
        border: number of pixels to cut off on every side.
    """

    root: Path
    images: list[tuple[str, int]]
    ignored: int
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    reference_classes: tuple[tuple[int, ...], ...] | None
    border: int = 0


def natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key that compares digits as numbers: 0, 1, 2, 10. Different names have different keys."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name


def is_image(name: str) -> bool:
    """Return whether a name or path is that of an image: it has a known suffix in either case, and is not hidden."""
    path = Path(name)
    return not path.name.startswith(".") and path.suffix.lower().lstrip(".") in IMAGE_SUFFIXES


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def class_folders(root: Path) -> tuple[list[str], list[str]]:
    """List the class folders of a tree.

    Returns:
        The names of the class folders in natural order, and the names of all other entries of `root`.

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
        raise SimgapError(f"{root / folder}: is a link to {place}, which contains the link; remove it")
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
        root: folder of the class folders.
        folders: the class folder of each label, or None for a class without a folder.
        recursive: whether subfolders of a class folder are searched too. Their images come after those of the folder
            itself, and links to folders are followed.

    Returns:
        Names and labels of the images, by label and then in natural order, and the number of other entries.

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
