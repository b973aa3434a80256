"""Ground truth that lies in the json of a pool's samples."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgap.data.shards import Accounting, Shard, find_shards, read_json_members
from simgap.embed.store import Embeddings
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


def _text(content: dict[str, Any], field: str) -> str | None:
    """Give a field's text, or None for null.

    Raises:
        SimgapError: it is something else, or text that no file can hold.
    """
    value = content[field]
    # JSON may hold half of a character: \ud83d.
    if value is not None and not (isinstance(value, str) and value.encode(errors="replace").decode() == value):
        raise SimgapError(f"{field} is {value!r:.80}; it should be text or null")
    return value


def _toy(content: dict[str, Any]) -> Mark:
    source, _, key = (_text(content, "copy_of") or "/").partition("/")
    style, kind, planted = (_text(content, field) for field in ("style", "class", "planted"))
    return Mark(style, kind, planted, source or None, key or None)


def _pacs(content: dict[str, Any]) -> Mark:
    source = _text(content, "source")
    if source is None:
        raise KeyError("source")
    collection, *path = source.split("/")
    style, kind = path[:2] if collection == "PACS" and len(path) > 1 else ("off_topic", None)
    original = _text(content, "duplicate_of")
    return Mark(style, kind, "near" if original else None, "pool" if original else None, original)


def _shard_marks(shard: Shard) -> Iterator[tuple[str, Mark]]:
    """Stream (key, mark) of a shard's samples; two dialects: toy worlds (`planted`) and pacs96 (`duplicate_of`)."""
    for key, text in read_json_members(shard, Accounting()):
        try:
            content = json.loads(text)
            yield key, _toy(content) if "planted" in content else _pacs(content)
        except SimgapError as error:
            raise SimgapError(f"{shard}: {key}.json: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise SimgapError(
                f"{shard}: {key}.json has no marks that can be read; leave ground_truth and prune.matched empty for pools "
                "without them"
            ) from None


def read_marks(pool: Path) -> dict[tuple[str, str], Mark]:
    """Read the marks of every pool sample by (shard, key).

    Raises:
        SimgapError: a sample's json has none.
    """
    return {(shard.name, key): mark for shard in find_shards(pool) for key, mark in _shard_marks(shard)}


def groups_of_rows(pool: Path, embeddings: Embeddings, match: str) -> NDArray[np.int32]:
    """Number the pool's rows by their class or style: int32 [rows], in the order in which groups first come.

    Rows of which it is not known are one group. Memory: the result, and one shard's marks.

    Args:
        match: `class` or `style`.

    Raises:
        SimgapError: a row lies in no shard of the pool or has no marks, or the marks name it of no row.
    """
    shards = {shard.name: shard for shard in find_shards(pool)}
    numbers: dict[str | None, int] = {}
    groups = np.empty(embeddings.rows, np.int32)
    remedy = "leave prune.matched empty for pools without them"
    for start, table in embeddings.metadata_parts(["shard", "key"]):
        rows = zip(itertools.count(start), table.column("shard").to_pylist(), table.column("key").to_pylist())
        for name, of_shard in itertools.groupby(rows, key=lambda row: row[1]):
            if name not in shards:
                raise SimgapError(f"{pool}: has no shard {name!r}, though rows of the embeddings lie in it")
            marks = dict(_shard_marks(shards[name]))
            for row, _, key in of_shard:
                if key not in marks:
                    raise SimgapError(f"{name}: {key} has no json with marks; {remedy}")
                group = marks[key].kind if match == "class" else marks[key].style
                groups[row] = numbers.setdefault(group, len(numbers))
    if not set(numbers) - {None}:
        raise SimgapError(f"{pool}: its marks name no sample's {match}; {remedy}")
    return groups
