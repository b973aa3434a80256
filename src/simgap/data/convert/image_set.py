"""Labelled images on disk, before they become a benchmark or a reference."""

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
    """What a converter found.

    Attributes:
        root: folder that the images' names are relative to.
        images: name and label of every image.
        ignored: files and folders beside them that are no images.
        classnames: one name for each label.
        templates: prompts with `{c}` where the class name goes.
        reference_classes: for each class the reference's class indices, or None where equal names are meant.
        border: pixels to cut off on every side.
    """

    root: Path
    images: list[tuple[str, int]]
    ignored: int
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    reference_classes: tuple[tuple[int, ...], ...] | None
    border: int = 0


def natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key in which numbers count as numbers: 0, 1, 2, 10; different names never tie."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name


def is_image(name: str) -> bool:
    """Say whether a file's name or path is an image's: of a known suffix in either case, and not hidden."""
    path = Path(name)
    return not path.name.startswith(".") and path.suffix.lower().lstrip(".") in IMAGE_SUFFIXES


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def class_folders(root: Path) -> tuple[list[str], list[str]]:
    """Give the names of a tree's class folders in natural order, and the names of what stands beside them.

    Raises:
        SimgapError: there is no such folder.
    """
    if not root.is_dir():
        raise SimgapError(f"{root}: no such folder; it should hold a folder for each class")
    entries = _entries(root)
    folders = {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    return sorted(folders, key=natural_order), [entry.name for entry in entries if entry.name not in folders]


def _images_of(root: Path, folder: str, within: bool, above: tuple[Path, ...] = ()) -> tuple[list[str], int]:
    place = (root / folder).resolve()
    if place in above:
        raise SimgapError(f"{root / folder}: leads back to {place}, in which it lies; remove the link")
    entries = sorted(_entries(root / folder), key=lambda entry: natural_order(entry.name))
    names = [f"{folder}/{entry.name}" for entry in entries if is_image(entry.name) and entry.is_file()]
    inner = [entry.name for entry in entries if within and entry.is_dir() and not entry.name.startswith(".")]
    ignored = len(entries) - len(names) - len(inner)
    for name in inner:
        more, others = _images_of(root, f"{folder}/{name}", within, (*above, place))
        names += more
        ignored += others
    return names, ignored


def images_in(root: Path, folders: Sequence[str | None], *, within: bool = False) -> tuple[list[tuple[str, int]], int]:
    """List the images of class folders; give their names and labels in natural order, and the number of other entries.

    A label is the place in `folders`, where None is a class without a folder.

    Args:
        within: whether images of folders within a class folder are the class's too. They come after the folder's own;
            links to folders are followed.

    Raises:
        SimgapError: a link leads back to a folder that it lies in.
    """
    images: list[tuple[str, int]] = []
    ignored = 0
    for label, folder in enumerate(progress(folders, len(folders), f"list {root.name}", "class")):
        if folder is not None:
            names, others = _images_of(root, folder, within)
            images += [(name, label) for name in names]
            ignored += others
    return images, ignored
