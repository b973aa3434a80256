"""Benchmarks in the layout of CLIP_benchmark and DataComp."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from simgap.errors import SimgapError


@dataclass(frozen=True)
class Benchmark:
    """A labelled test set on disk.

    Attributes:
        name: its folder's name.
        classnames: one name for each label.
        templates: prompts with `{c}` where the class name goes.
        shards: its tars in the order of their numbers.
        reference_classes: for each class the reference's class indices, or None where equal names are meant.
    """

    name: str
    folder: Path
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    shards: tuple[Path, ...]
    reference_classes: tuple[tuple[int, ...], ...] | None


def read_lines(path: Path, what: str) -> tuple[str, ...]:
    """Give the non-empty lines of a text file.

    Raises:
        SimgapError: the file is missing or empty.
    """
    if not path.is_file():
        raise SimgapError(f"{path}: no such file; it should hold {what}")
    lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not lines:
        raise SimgapError(f"{path}: is empty; it should hold {what}")
    return lines


def _shards(folder: Path) -> tuple[Path, ...]:
    count_file = folder / "test" / "nshards.txt"
    (count,) = read_lines(count_file, "the number of shards")[:1]
    if not count.isdigit() or int(count) == 0:
        raise SimgapError(f"{count_file}: {count!r} is no number of shards; it should be 1 or more")
    paths = tuple(folder / "test" / f"{number}.tar" for number in range(int(count)))
    for path in paths:
        if not path.is_file():
            raise SimgapError(f"{path}: no such shard, though {count_file.name} says {count}")
    return paths


def _reference_classes(path: Path, classes: int) -> tuple[tuple[int, ...], ...] | None:
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, list) or len(content) != classes:
        raise SimgapError(f"{path}: should be a list with one entry for each of the {classes} classes")
    return tuple(tuple(entry) if isinstance(entry, list) else (int(entry),) for entry in content)


def load_benchmark(folder: Path) -> Benchmark:
    """Read what describes a benchmark, and check that all its shards are there.

    Raises:
        SimgapError: a file is missing or empty, a shard is missing, a template lacks `{c}`, there is only one class.
    """
    if not folder.is_dir():
        raise SimgapError(f"{folder}: no such benchmark folder")
    classnames = read_lines(folder / "classnames.txt", "one class name a line")
    if len(classnames) < 2:
        raise SimgapError(f"{folder / 'classnames.txt'}: has {len(classnames)} class; a benchmark needs at least 2")
    template_file = folder / "zeroshot_classification_templates.txt"
    templates = read_lines(template_file, "one template a line, with {c}")
    for template in templates:
        if "{c}" not in template:
            raise SimgapError(f"{template_file}: {template!r} lacks {{c}}, the place of the class name")
    return Benchmark(
        folder.name,
        folder,
        classnames,
        templates,
        _shards(folder),
        _reference_classes(folder / "reference_classes.json", len(classnames)),
    )
