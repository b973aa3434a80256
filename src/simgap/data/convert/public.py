"""Find the images of public datasets, whose class folders and numbers of images are known."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.data.convert.image_set import ImageSet, class_folders, images_in, is_image
from simgap.data.convert.imagenet import PublicSet, classnames, templates


def list_known_images(
    title: str,
    root: Path,
    folders: Sequence[str],
    expected: int,
    *,
    others: Collection[str] = (),
    allow_incomplete: bool,
) -> tuple[list[tuple[str, int]], int]:
    """List the images of a public dataset, and check the class folders and the number of images.

    Args:
        title: Name of the dataset, for error messages.
        root: Folder that contains the class folders.
        folders: Names of the class folders, in the order of the labels.
        expected: Number of images in the dataset.
        others: Names of further folders of the dataset, which are ignored.
        allow_incomplete: Whether class folders and images may be missing.

    Returns:
        A pair. The first part lists the name and the label of each image, in the order of `images_in`. The second part is the
        number of ignored files and folders.

    Raises:
        SimgapError: Class folders or images are missing. Or there are more images than the dataset has, or there is a folder
            that the dataset does not have.
    """
    found, entries = class_folders(root)
    there = set(found)
    missing = [folder for folder in folders if folder not in there]
    if len(missing) == len(folders):
        flat = " its images should be sorted into class folders;" if any(is_image(name) for name in entries) else ""
        raise SimgapError(
            f"{root}: holds no class folder of {title};{flat} it should hold {folders[0]} to {folders[-1]}, unpacked"
        )
    for folder in found:
        if folder not in folders and folder not in others:
            raise SimgapError(f"{root / folder}: is not a class folder of {title}; remove it, or name another dataset")
    hint = "" if allow_incomplete else "; --allow-incomplete accepts fewer"
    if missing and not allow_incomplete:
        raise SimgapError(
            f"{root}: lacks {len(missing)} of the {len(folders)} class folders of {title}, {missing[0]} first{hint}"
        )
    images, ignored = images_in(root, [folder if folder in there else None for folder in folders])
    if len(images) > expected:
        raise SimgapError(f"{root}: holds {len(images)} images; {title} has {expected}; remove the others")
    if not images or (len(images) < expected and not allow_incomplete):
        raise SimgapError(f"{root}: holds {len(images)} images; {title} has {expected}{hint}")
    return images, ignored + len(entries)


def find_imagenet(public: PublicSet, source: Path, *, allow_incomplete: bool) -> ImageSet:
    """Find the images of a public dataset with ImageNet's classes.

    Args:
        public: The dataset.
        source: Folder that contains the class folders.
        allow_incomplete: Whether class folders and images may be missing.

    Raises:
        SimgapError: The class folders or the number of images are wrong. `list_known_images` describes the rules.
    """
    images, ignored = list_known_images(
        public.title, source, public.folders(), public.images, allow_incomplete=allow_incomplete
    )
    classes = public.classes()
    # Indices identify the classes of the reference. Names cannot, because two of ImageNet's class names each stand for two
    # classes.
    indices = tuple((index,) for index in classes)
    return ImageSet(source, images, ignored, tuple(classnames()[index] for index in classes), templates(), indices)
