"""Public data sets, whose class folders and numbers of images are known."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.data.convert.image_set import ImageSet, class_folders, images_in, is_image
from simgap.data.convert.imagenet import PublicSet, classnames, templates


def known_images(
    title: str,
    root: Path,
    folders: Sequence[str],
    expected: int,
    *,
    others: Collection[str] = (),
    allow_incomplete: bool,
) -> tuple[list[tuple[str, int]], int]:
    """List the images of a public data set, whose class folders and number of images are known; see `images_in`.

    Args:
        others: folders of the data set that are not wanted.
        allow_incomplete: whether classes and images may be missing.

    Raises:
        SimgapError: a class folder or an image is missing, there are more images than the data set has, or folders that it
            does not have.
    """
    found, beside = class_folders(root)
    there = set(found)
    missing = [folder for folder in folders if folder not in there]
    if len(missing) == len(folders):
        flat = " its images should be sorted into such folders;" if any(is_image(name) for name in beside) else ""
        raise SimgapError(
            f"{root}: holds no class folder of {title};{flat} it should hold {folders[0]} to {folders[-1]}, unpacked"
        )
    for folder in found:
        if folder not in folders and folder not in others:
            raise SimgapError(f"{root / folder}: is no class folder of {title}; remove it, or name another data set")
    hint = "" if allow_incomplete else "; --allow-incomplete takes what is there"
    if missing and not allow_incomplete:
        raise SimgapError(
            f"{root}: lacks {len(missing)} of the {len(folders)} class folders of {title}, {missing[0]} first{hint}"
        )
    images, ignored = images_in(root, [folder if folder in there else None for folder in folders])
    if len(images) > expected:
        raise SimgapError(f"{root}: holds {len(images)} images; {title} has {expected}: remove those that it has not")
    if not images or (len(images) < expected and not allow_incomplete):
        raise SimgapError(f"{root}: holds {len(images)} images; {title} has {expected}{hint}")
    return images, ignored + len(beside)


def find_imagenet(public: PublicSet, source: Path, *, allow_incomplete: bool) -> ImageSet:
    """Find the images of a data set with ImageNet's classes, in class folders; for its count see `known_images`.

    Raises:
        SimgapError: images or class folders are missing, or there are others.
    """
    images, ignored = known_images(
        public.title, source, public.folders(), public.images, allow_incomplete=allow_incomplete
    )
    classes = public.classes()
    # By index, since two classes of ImageNet share a name with another.
    indices = tuple((index,) for index in classes)
    return ImageSet(source, images, ignored, tuple(classnames()[index] for index in classes), templates(), indices)
