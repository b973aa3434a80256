"""Read ground truth annotations from the JSON members of a pool."""

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
    """What is known about a pool sample.

    Attributes:
        style: style of the image, or None if it is unknown.
        kind: class of the image, or None if it is off-topic or unknown.
        planted: `exact`, `near` or `sibling` if the sample repeats another one, else None.
        source: set of the sample that it repeats (`pool`, `reference` or a benchmark), or None.
        key: key of the sample that it repeats, or None.
    """

    style: str | None
    kind: str | None
    planted: str | None
    source: str | None
    key: str | None


def _text(content: dict[str, Any], field: str) -> str | None:
    """Return the text of a field, or None if the field is null.

    Raises:
        SimgapError: The field is neither text nor null, or is text that cannot be encoded as UTF-8.
    """
    value = content[field]
    # JSON can hold half of a surrogate pair, such as \ud83d, which no UTF-8 file can store.
    if value is not None and not (isinstance(value, str) and value.encode(errors="replace").decode() == value):
        raise SimgapError(f"{field} is {value!r:.80}; it should be text or null")
    return value


def _toy_annotation(content: dict[str, Any]) -> Annotation:
    source, _, key = (_text(content, "copy_of") or "/").partition("/")
    style, kind, planted = (_text(content, field) for field in ("style", "class", "planted"))
    return Annotation(style, kind, planted, source or None, key or None)


def _pacs_annotation(content: dict[str, Any]) -> Annotation:
    source = _text(content, "source")
    if source is None:
        raise KeyError("source")
    collection, *path = source.split("/")
    style, kind = path[:2] if collection == "PACS" and len(path) > 1 else ("off_topic", None)
    original = _text(content, "duplicate_of")
    return Annotation(style, kind, "near" if original else None, "pool" if original else None, original)


def shard_annotations(shard: Shard) -> Iterator[tuple[str, Annotation]]:
    """Stream (key, annotation) of the samples of a shard.

    Two formats are known: that of toy worlds, which has the field `planted`, and that of pacs96, which has `duplicate_of`.

    Raises:
        SimgapError: The JSON of a sample has no annotation, or one with a wrong type.
    """
    for key, text in read_json_members(shard, Accounting()):
        try:
            content = json.loads(text)
            yield key, _toy_annotation(content) if "planted" in content else _pacs_annotation(content)
        except SimgapError as error:
            raise SimgapError(f"{shard}: {key}.json: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise SimgapError(
                f"{shard}: {key}.json holds no readable annotation; for a pool without annotations leave ground_truth and "
                "prune.matched empty"
            ) from None


def read_annotations(pool: Path) -> dict[tuple[str, str], Annotation]:
    """Read the annotation of every pool sample by (shard, key).

    Raises:
        SimgapError: The JSON of a sample has no annotation, or one with a wrong type.
    """
    return {
        (shard.name, key): annotation for shard in find_shards(pool) for key, annotation in shard_annotations(shard)
    }
