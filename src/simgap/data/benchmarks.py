"""Load benchmarks in the layout of CLIP_benchmark and DataComp."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import read_json


@dataclass(frozen=True)
class Benchmark:
    """A labelled test dataset.

    Attributes:
        name: Name of the folder.
        folder: Path of the folder.
        classnames: Name of each class, in the order of the labels.
        templates: Prompts in which `{c}` stands for the class name.
        shards: Tars of the benchmark, in the order of the shard numbers.
        reference_classes: For each class of the benchmark, the indices of the same class in the reference. None means that
            classes with equal names are the same class.
    """

    name: str
    folder: Path
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    shards: tuple[Path, ...]
    reference_classes: tuple[tuple[int, ...], ...] | None


def read_lines(path: Path, what: str) -> tuple[str, ...]:
    """Read the lines of a text file. Blank lines at the end of the file are left out.

    In a file of class names, the number of a line is the label of a class. A blank line would be a class without a name, so
    blank lines between other lines are refused.

    Args:
        path: The text file.
        what: What the file must contain. Error messages use this text.

    Returns:
        The lines without white space at both ends.

    Raises:
        SimgapError: The file is missing, or empty, or not UTF-8. Or a blank line stands between other lines.
    """
    if not path.is_file():
        raise SimgapError(f"{path}: no such file; it should hold {what}")
    try:
        lines = path.read_text(encoding="utf-8").rstrip().split("\n")
    except UnicodeDecodeError:
        raise SimgapError(f"{path}: is not UTF-8 text; it should hold {what}") from None
    lines = [line.strip() for line in lines]
    if lines == [""]:
        raise SimgapError(f"{path}: is empty; it should hold {what}")
    if "" in lines:
        raise SimgapError(f"{path}: line {lines.index('') + 1} is blank; it should hold {what}")
    return tuple(lines)


def read_templates(path: Path) -> tuple[str, ...]:
    """Read a file of prompts in which `{c}` stands for the class name.

    Returns:
        One template for each line of the file.

    Raises:
        SimgapError: The file is missing or empty, or a template lacks `{c}`.
    """
    templates = read_lines(path, "one template a line, with {c}")
    for template in templates:
        if "{c}" not in template:
            raise SimgapError(f"{path}: {template!r} lacks {{c}}; put {{c}} where the class name should stand")
    return templates


def _find_shards(folder: Path) -> tuple[Path, ...]:
    count_file = folder / "test" / "nshards.txt"
    (count,) = read_lines(count_file, "the number of shards")[:1]
    if not (count.isascii() and count.isdigit()) or int(count) == 0:
        raise SimgapError(f"{count_file}: {count!r} is not a number of shards; it should be 1 or more")
    paths = tuple(folder / "test" / f"{number}.tar" for number in range(int(count)))
    for path in paths:
        if not path.is_file():
            raise SimgapError(
                f"{path}: no such shard, though {count_file.name} says {count}; restore it or correct {count_file.name}"
            )
    return paths


def _reference_classes(path: Path, classes: int) -> tuple[tuple[int, ...], ...] | None:
    if not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, list) or len(content) != classes:
        raise SimgapError(f"{path}: should be a list with one entry for each of the {classes} classes")
    entries = [entry if isinstance(entry, list) else [entry] for entry in content]
    for entry in entries:
        if not all(type(index) is int and index >= 0 for index in entry):
            raise SimgapError(f"{path}: {entry} should hold class indices of the reference, each 0 or more")
    return tuple(tuple(entry) for entry in entries)


def load_benchmark(folder: Path) -> Benchmark:
    """Load the description of a benchmark, and check that all its shards exist.

    Raises:
        SimgapError: A file is missing, empty or malformed. Or a shard is missing, or there are fewer than two classes.
    """
    if not folder.is_dir():
        raise SimgapError(f"{folder}: no such benchmark folder; write it with `simgap convert` or correct the path")
    classnames = read_lines(folder / "classnames.txt", "one class name a line")
    if len(classnames) < 2:
        raise SimgapError(f"{folder / 'classnames.txt'}: has {len(classnames)} class; a benchmark needs at least 2")
    templates = read_templates(folder / "zeroshot_classification_templates.txt")
    return Benchmark(
        folder.name,
        folder,
        classnames,
        templates,
        _find_shards(folder),
        _reference_classes(folder / "reference_classes.json", len(classnames)),
    )
