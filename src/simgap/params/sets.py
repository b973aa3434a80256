"""Blocks `copy`, `manifest`, `pool`, `reference` and `benchmarks`: where the data are."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from simgap.params.block import STRICT, Count, SetName, unique

ADDRESS = re.compile(r"[a-z][a-z0-9]*://[^\s@:?]+")


def _is_address(address: str) -> str:
    if not ADDRESS.fullmatch(address):
        raise ValueError(
            "it must be an address such as s3://BUCKET/FOLDER, without credentials: those belong in the environment"
        )
    return address


@dataclass(frozen=True, config=STRICT)
class CopyParameters:
    """Data to copy into the study."""

    source: str
    """The folder to copy from; a relative path starts at the repository's root."""

    folders: list[str]
    """Names of the folders in `source` to copy."""

    sha256: str
    """SHA-256 of all copied files."""


@dataclass(frozen=True, config=STRICT)
class ManifestParameters:
    """Shards that stay in an object store."""

    address: Annotated[str, AfterValidator(_is_address)]
    """The address of the folder of shards, for example s3://BUCKET/FOLDER; any protocol of fsspec."""


@dataclass(frozen=True, config=STRICT)
class PoolParameters:
    """The pool."""

    path: str
    """Folder of its shards, or of their manifest."""

    embed: str
    """What its embeddings are made from: the shards again, or a folder of embeddings to import."""

    shard_digits: Count | None
    """How many leading digits of an imported key are the number of its shard; null if keys have none."""


@dataclass(frozen=True, config=STRICT)
class ReferenceParameters:
    """The reference."""

    path: str
    """Folder of its shards."""

    classnames: str
    """File of its class names, one a line."""

    add_to_pool: bool
    """Whether the reference joins the training data of every split, as in the paper."""


@dataclass(frozen=True, config=STRICT)
class BenchmarksParameters:
    """The benchmarks."""

    path: str
    """Folder of their folders."""

    names: Annotated[list[SetName], Field(min_length=1), AfterValidator(unique)]
    """Their names."""

    query_fraction: Annotated[float, Field(gt=0, le=1)]
    """The share of a benchmark's images that rules use; the other images are held out."""

    query_seed: NonNegativeInt
    """Decides which images those are."""

    accepted_licences: list[str]
    """Benchmarks that may take part in a rule although their licence restricts it."""
