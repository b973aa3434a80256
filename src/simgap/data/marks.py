"""Ground truth that lies in the json of a pool's samples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simgap.core.errors import SimgapError
from simgap.data.shards import Accounting, Shard, find_shards, read_json_members


@dataclass(frozen=True)
class Annotation:
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


def _toy(content: dict[str, Any]) -> Annotation:
    source, _, key = (_text(content, "copy_of") or "/").partition("/")
    style, kind, planted = (_text(content, field) for field in ("style", "class", "planted"))
    return Annotation(style, kind, planted, source or None, key or None)


def _pacs(content: dict[str, Any]) -> Annotation:
    source = _text(content, "source")
    if source is None:
        raise KeyError("source")
    collection, *path = source.split("/")
    style, kind = path[:2] if collection == "PACS" and len(path) > 1 else ("off_topic", None)
    original = _text(content, "duplicate_of")
    return Annotation(style, kind, "near" if original else None, "pool" if original else None, original)


def shard_annotations(shard: Shard) -> Iterator[tuple[str, Annotation]]:
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


def read_annotations(pool: Path) -> dict[tuple[str, str], Annotation]:
    """Read the marks of every pool sample by (shard, key).

    Raises:
        SimgapError: a sample's json has none.
    """
    return {(shard.name, key): mark for shard in find_shards(pool) for key, mark in shard_annotations(shard)}
