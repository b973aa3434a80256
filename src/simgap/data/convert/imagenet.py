"""Describe ImageNet and other public datasets that have ImageNet's classes.

Class names and templates come from open_clip. The lists of class folders come from timm.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources


def _synsets(file: str) -> list[str]:
    return (resources.files("timm.data") / "_info" / file).read_text("utf-8").split()


@functools.cache
def wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's 1000 classes, in the order of the class indices."""
    return tuple(_synsets("imagenet_synsets.txt"))


def classnames() -> tuple[str, ...]:
    """Return OpenAI's names of ImageNet's 1000 classes. Two of the names each stand for two classes."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


def templates() -> tuple[str, ...]:
    """Return OpenAI's 80 prompts for ImageNet, in which `{c}` stands for the class name."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{c}") for template in OPENAI_IMAGENET_TEMPLATES)


@dataclass(frozen=True)
class PublicSet:
    """A public dataset with ImageNet's classes.

    Attributes:
        title: Name of the dataset.
        images: Number of images in the dataset.
        folders: Function that returns the names of the class folders, in the order of ImageNet's class indices.
        classes: Function that returns the ImageNet class index of each class folder, in the order of `folders`.
    """

    title: str
    images: int
    folders: Callable[[], list[str]]
    classes: Callable[[], list[int]]


def _with_wnids(title: str, images: int, subset: str | None = None) -> PublicSet:
    def folders() -> list[str]:
        return _synsets(f"imagenet_{subset}_synsets.txt") if subset else list(wnids())

    return PublicSet(title, images, folders, lambda: [wnids().index(wnid) for wnid in folders()])


PUBLIC = {
    "imagenet-train": _with_wnids("ImageNet-Train", 1_281_167),
    "imagenet-val": _with_wnids("ImageNet-Val", 50_000),
    "imagenet-v2": PublicSet(
        "ImageNet-V2", 10_000, lambda: [str(label) for label in range(1000)], lambda: list(range(1000))
    ),
    "imagenet-sketch": _with_wnids("ImageNet-Sketch", 50_889),
    "imagenet-a": _with_wnids("ImageNet-A", 7_500, "a"),
    "imagenet-r": _with_wnids("ImageNet-R", 30_000, "r"),
}
