"""The sets of a study: which shards each has, and how many classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simgap.data.benchmarks import load_benchmark, read_lines
from simgap.data.shards import Shard, find_shards


@dataclass(frozen=True)
class SetToEmbed:
    """A set before it is embedded.

    Attributes:
        shards: Its shards, in the order of their rows.
        classes: Number of classes of a labelled set; None for a set without labels.
        captioned: Whether its samples have captions.
    """

    shards: tuple[Shard, ...]
    classes: int | None
    captioned: bool


def find_set(kind: str, data: Path, classnames: Path) -> SetToEmbed:
    """Find the shards and classes of a set.

    Args:
        kind: `pool`, `reference` or `benchmark`.
        data: Its folder.
        classnames: File of the reference's class names.

    Raises:
        SimgapError: A file or folder is missing.
    """
    if kind == "benchmark":
        benchmark = load_benchmark(data)
        return SetToEmbed(benchmark.shards, len(benchmark.classnames), captioned=False)
    classes = len(read_lines(classnames, "one class name a line")) if kind == "reference" else None
    return SetToEmbed(tuple(find_shards(data)), classes, captioned=kind == "pool")
