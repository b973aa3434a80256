"""Read the ground-truth annotations of a pool from the JSON members of its shards."""

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
    """The ground truth of a pool sample.

    Some samples repeat another sample, which is called the original here.

    Attributes:
        style: Style of the image, or None if the style is unknown.
        kind: Class of the image. None means that the image is off-topic or that the class is unknown.
        planted: How the sample repeats the original: `exact`, `near` or `sibling`. None if there is no original.
        source: Where the original is: `pool`, `reference` or the name of a benchmark. None if there is no original.
        key: Key of the original. None if there is no original.
    """

    style: str | None
    kind: str | None
    planted: str | None
    source: str | None
    key: str | None


def _text(content: dict[str, Any], field: str) -> str | None:
    """Return the text of a field, or None if the field is null.

    Raises:
        SimgapError: The field is neither text nor null, or it is text that cannot be encoded as UTF-8.
    """
    value = content[field]
    # JSON text may contain one half of a surrogate pair, such as \ud83d. UTF-8 cannot encode such text.
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
    """Yield the key and the annotation of each sample in a shard. Samples without JSON are skipped.

    The samples come in the order of the tar. The function knows two formats of JSON. Toy worlds have the field `planted`. The
    dataset pacs96 has the field `duplicate_of`.

    Raises:
        SimgapError: The JSON of a sample has no annotation, or a field of the annotation has a wrong type.
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
    """Read the annotations of all samples of a pool. Samples without JSON are skipped.

    Returns:
        Map from the pair (shard name, key) of a sample to the annotation of the sample.

    Raises:
        SimgapError: The JSON of a sample has no annotation, or a field of the annotation has a wrong type.
    """
    return {
        (shard.name, key): annotation for shard in find_shards(pool) for key, annotation in shard_annotations(shard)
    }
