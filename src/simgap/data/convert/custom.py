"""Find the labelled images of a user, either in class folders or in a CSV list."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from simgap.core.errors import SimgapError
from simgap.data.benchmarks import read_lines
from simgap.data.convert.image_set import ImageSet, class_folders, images_in, is_image, natural_order
from simgap.data.shards import IMAGE_SUFFIXES


def _check_names(where: Path, names: tuple[str, ...]) -> None:
    if len(names) < 2:
        raise SimgapError(f"{where}: has {len(names)} classes; a benchmark needs at least 2")
    for name in names:
        if not name or not name.isprintable():
            raise SimgapError(f"{where}: {name!r} is not a class name; it must be text on one line")
        if names.count(name) > 1:
            raise SimgapError(f"{where}: two classes have the name {name!r}; give each class its own name")


def find_in_folders(tree: Path, templates: tuple[str, ...]) -> ImageSet:
    """Find the images of a tree with one folder for each class.

    The function also searches the subfolders of a class folder, like torchvision's ImageFolder. Labels follow the natural
    order of the folder names. The name of a class is the name of its folder, with spaces in place of underscores.

    Args:
        tree: Folder that contains the class folders.
        templates: Prompts in which `{c}` stands for the class name.

    Raises:
        SimgapError: There are fewer than two class folders, or a class has no image. Or two folders give the same class name,
            or a link leads to a folder that contains the link.
    """
    folders, others = class_folders(tree)
    names = tuple(folder.replace("_", " ").strip() for folder in folders)
    _check_names(tree, names)
    images, ignored = images_in(tree, folders, recursive=True)
    empty = set(range(len(folders))) - {label for _, label in images}
    if empty:
        raise SimgapError(
            f"{tree / folders[min(empty)]}: holds no image ({', '.join(IMAGE_SUFFIXES)}); add an image or remove the folder"
        )
    return ImageSet(tree, images, ignored + len(others), names, templates, None)


class _Row(NamedTuple):
    """A row of a CSV file. It has either a label or a class name, and the other field is None."""

    line: int
    path: str
    label: str | None
    classname: str | None


def _read_rows(file: Path) -> Iterator[_Row]:
    """Yield the rows of a CSV file.

    Raises:
        SimgapError: The file is missing, or it is not CSV in UTF-8. Or a column or a field is missing.
    """
    try:
        # Spreadsheet programs begin a CSV file with a byte order mark. The codec utf-8-sig skips this mark.
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            columns = rows.fieldnames or []
            if "path" not in columns or ("label" in columns) == ("classname" in columns):
                raise SimgapError(
                    f"{file}: has the columns {', '.join(columns)}; it should have path and label, or path and classname"
                )
            for row in rows:
                if None in row.values() or None in row:
                    raise SimgapError(
                        f"{file}: line {rows.line_num} has missing or extra fields; it should have {len(columns)}"
                    )
                fields = {column: value.strip() for column, value in row.items()}
                yield _Row(rows.line_num, fields["path"], fields.get("label"), fields.get("classname"))
    except FileNotFoundError:
        raise SimgapError(
            f"{file}: no such file; it should be a CSV of path and label, or path and classname"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SimgapError(f"{file}: cannot be read as CSV ({error}); save it as CSV in UTF-8") from None


def _class_names(file: Path, rows: list[_Row], classnames: Path | None) -> tuple[str, ...]:
    if classnames is not None:
        return read_lines(classnames, "one class name a line")
    if rows[0].classname is None:
        raise SimgapError(f"{file}: has labels; give --classnames a file with one class name a line")
    return tuple(sorted({row.classname for row in rows if row.classname is not None}, key=natural_order))


def _parse_label(where: str, text: str, classes: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < classes):
        raise SimgapError(
            f"{where}: {text!r} should be a label from 0 to {classes - 1}, since there are {classes} class names"
        )
    return int(text)


def find_in_csv(file: Path, classnames: Path | None, templates: tuple[str, ...]) -> ImageSet:
    """Find the images that a CSV file lists, in the order of its rows.

    Args:
        file: CSV file with the columns `path` and `classname`, or `path` and `label`. Paths are relative to the folder of the
            file. Labels count from 0.
        classnames: File with one class name in each line, in the order of the labels. A CSV file with labels needs this file.
            None means that the CSV file has class names, and labels follow the natural order of these names.
        templates: Prompts in which `{c}` stands for the class name.

    Raises:
        SimgapError: The file does not have these columns, or it lists no image. Or a path is not an image file, or a label or
            class name is unknown. Or the file has labels, and `classnames` is None.
    """
    rows = list(_read_rows(file))
    if not rows:
        raise SimgapError(f"{file}: lists no image; it must list at least one")
    names = _class_names(file, rows, classnames)
    _check_names(classnames or file, names)
    labels = {name: label for label, name in enumerate(names)}
    images: list[tuple[str, int]] = []
    for line, path, label, name in rows:
        where = f"{file}: line {line}"
        if not is_image(path) or not (file.parent / path).is_file():
            raise SimgapError(
                f"{where}: {path!r} is not an image file ({', '.join(IMAGE_SUFFIXES)}) in {file.parent}; correct the path"
            )
        if name is not None and name not in labels:
            raise SimgapError(f"{where}: {name!r} is not in {classnames}; add the class name to that file")
        images.append((path, _parse_label(where, label, len(names)) if label is not None else labels[name or ""]))
    return ImageSet(file.parent, images, 0, names, templates, None)
