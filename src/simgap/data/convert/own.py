"""One's own labelled images: a folder a class, or a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.data.benchmarks import read_lines
from simgap.data.convert.image_set import ImageSet, class_folders, images_in, is_image, natural_order
from simgap.data.shards import IMAGE_SUFFIXES


def _check_names(where: Path, names: tuple[str, ...]) -> None:
    if len(names) < 2:
        raise SimgapError(f"{where}: has {len(names)} classes; a benchmark needs at least 2")
    for name in names:
        if not name or not name.isprintable():
            raise SimgapError(f"{where}: {name!r} is no class name; it should be text on one line")
        if names.count(name) > 1:
            raise SimgapError(f"{where}: the class name {name!r} stands twice; each class should have its own")


def find_in_folders(tree: Path, templates: tuple[str, ...]) -> ImageSet:
    """Find the images of a tree with a folder a class, those of folders within it too, as torchvision's ImageFolder does.

    Class indices follow the folders' names in natural order; underscores in names become spaces.

    Raises:
        SimgapError: there are fewer than two class folders, one has no image, two give one name, or links go in a circle.
    """
    folders, beside = class_folders(tree)
    names = tuple(folder.replace("_", " ").strip() for folder in folders)
    _check_names(tree, names)
    images, ignored = images_in(tree, folders, within=True)
    empty = set(range(len(folders))) - {label for _, label in images}
    if empty:
        raise SimgapError(f"{tree / folders[min(empty)]}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return ImageSet(tree, images, ignored + len(beside), names, templates, None)


def _rows(file: Path) -> Iterator[tuple[int, str, str | None, str | None]]:
    """Yield line, path, label and classname of every row; the last two as far as the file has them.

    Raises:
        SimgapError: the file is missing, is no UTF-8 CSV, or lacks a column or a field.
    """
    try:
        # A byte order mark is what spreadsheets begin with.
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            columns = rows.fieldnames or []
            if "path" not in columns or ("label" in columns) == ("classname" in columns):
                raise SimgapError(
                    f"{file}: has the columns {', '.join(columns)}; it should have path and label, or path and classname"
                )
            for row in rows:
                if None in row.values() or None in row:
                    raise SimgapError(f"{file}: line {rows.line_num} should have {len(columns)} fields")
                fields = {column: value.strip() for column, value in row.items()}
                yield rows.line_num, fields["path"], fields.get("label"), fields.get("classname")
    except FileNotFoundError:
        raise SimgapError(
            f"{file}: no such file; it should be a CSV of path and label, or path and classname"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SimgapError(f"{file}: cannot be read as CSV ({error})") from None


def _label(where: str, text: str, classes: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < classes):
        raise SimgapError(
            f"{where}: {text!r} should be a label from 0 to {classes - 1}, as there are {classes} class names"
        )
    return int(text)


def find_in_csv(file: Path, classnames: Path | None, templates: tuple[str, ...]) -> ImageSet:
    """Find the images that a CSV file lists, in its order; paths in it are relative to its folder.

    It has the columns `path` and `label` (the place in `classnames`), or `path` and `classname`. Names without a list of
    them are put in natural order.

    Raises:
        SimgapError: the file is no such CSV, a path is no image file, a label or name is unknown, or labels have no names.
    """
    rows = list(_rows(file))
    if not rows:
        raise SimgapError(f"{file}: lists no image")
    if classnames is not None:
        names = read_lines(classnames, "one class name a line")
    else:
        if rows[0][3] is None:
            raise SimgapError(f"{file}: has labels; --classnames should name the file with the class names, one a line")
        names = tuple(sorted({name for _, _, _, name in rows if name is not None}, key=natural_order))
    _check_names(classnames or file, names)
    labels = {name: label for label, name in enumerate(names)}
    images: list[tuple[str, int]] = []
    for line, path, label, name in rows:
        where = f"{file}: line {line}"
        if not is_image(path) or not (file.parent / path).is_file():
            raise SimgapError(f"{where}: {path!r} is no image file ({', '.join(IMAGE_SUFFIXES)}) in {file.parent}")
        if name is not None and name not in labels:
            raise SimgapError(f"{where}: {name!r} is not in {classnames}")
        images.append((path, _label(where, label, len(names)) if label is not None else labels[name or ""]))
    return ImageSet(file.parent, images, 0, names, templates, None)
