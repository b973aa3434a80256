"""Find the shards and classes of a set to embed: the pool, the reference or a benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simgap.data.benchmarks import load_benchmark, read_lines
from simgap.data.shards import Shard, find_shards


@dataclass(frozen=True)
class SetToEmbed:
    """The shards of a set, the number of its classes, and whether its samples have captions.

    Attributes:
        shards: The shards of the set, in the order of the rows.
        classes: Number of classes of a labelled set, or None if the set has no labels.
        captioned: Whether the samples have captions.
    """

    shards: tuple[Shard, ...]
    classes: int | None
    captioned: bool


def find_set(kind: str, data: Path, classnames: Path) -> SetToEmbed:
    """Find the shards and classes of a set.

    Args:
        kind: `pool`, `reference` or `benchmark`.
        data: Folder of the set.
        classnames: File with the class names of the reference. The function reads it only if `kind` is `reference`.

    Raises:
        SimgapError: A file or folder is missing.
    """
    if kind == "benchmark":
        benchmark = load_benchmark(data)
        return SetToEmbed(benchmark.shards, len(benchmark.classnames), captioned=False)
    classes = len(read_lines(classnames, "one class name a line")) if kind == "reference" else None
    return SetToEmbed(tuple(find_shards(data)), classes, captioned=kind == "pool")
