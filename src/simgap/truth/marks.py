"""Ground truth that lies in the json of a pool's samples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simgap.data.shards import Accounting, find_shards, read_json_members
from simgap.errors import SimgapError


@dataclass(frozen=True)
class Mark:
    """What is known of one pool sample.

    Attributes:
        style, kind: the image's style and class; None where it is off-topic or unknown.
        planted: `exact`, `near` or `sibling`, or None.
        source, key: the sample that it repeats, as set (`pool`, `reference`, a benchmark) and key.
    """

    style: str | None
    kind: str | None
    planted: str | None
    source: str | None
    key: str | None


def _toy(content: dict[str, Any]) -> Mark:
    source, _, key = (content["copy_of"] or "/").partition("/")
    return Mark(content["style"], content["class"], content["planted"], source or None, key or None)


def _pacs(content: dict[str, Any]) -> Mark:
    collection, *path = content["source"].split("/")
    style, kind = path[:2] if collection == "PACS" and len(path) > 1 else ("off_topic", None)
    original = content["duplicate_of"]
    return Mark(style, kind, "near" if original else None, "pool" if original else None, original)


def read_marks(pool: Path) -> dict[tuple[str, str], Mark]:
    """Read the marks of every pool sample by (shard, key); two dialects: toy worlds (`planted`) and pacs96 (`duplicate_of`).

    Raises:
        SimgapError: a sample's json has neither.
    """
    marks = {}
    for shard in find_shards(pool):
        for key, text in read_json_members(shard, Accounting()):
            try:
                content = json.loads(text)
                marks[shard.name, key] = _toy(content) if "planted" in content else _pacs(content)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise SimgapError(
                    f"{shard}: {key}.json has no marks that can be read; leave ground_truth empty for pools without them"
                ) from None
    return marks
