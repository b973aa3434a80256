"""Define the blocks `copy`, `manifest`, `pool`, `reference` and `benchmarks`, which say where the data are stored."""

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
            "it must be an address such as s3://BUCKET/FOLDER without credentials, which belong in environment variables"
        )
    return address


@dataclass(frozen=True, config=STRICT)
class CopyParameters:
    """Data to copy into the study."""

    source: str
    """Folder that contains the data. A relative path is relative to the root of the repository."""

    folders: list[str]
    """Names of the folders in `source` to copy."""

    sha256: str
    """SHA-256 checksum over all copied files."""


@dataclass(frozen=True, config=STRICT)
class ManifestParameters:
    """Shards that stay in an object store."""

    address: Annotated[str, AfterValidator(_is_address)]
    """Address of the folder of shards, for example s3://BUCKET/FOLDER. All protocols of fsspec are allowed."""


@dataclass(frozen=True, config=STRICT)
class PoolParameters:
    """The large set of image-text pairs that the study prunes."""

    path: str
    """Folder of the pool's shards, or of a manifest of these shards."""

    embed: str
    """Folder from which the pool's embeddings come. Images of the folder in `path` are embedded. A folder of embeddings is
    imported."""

    shard_digits: Count | None
    """Number of leading digits of an imported key that name the shard. It is null if keys do not name shards."""


@dataclass(frozen=True, config=STRICT)
class ReferenceParameters:
    """The curated training set to which the imagenet-like rule compares the pool (in the paper, ImageNet-Train)."""

    path: str
    """Folder of the reference's shards."""

    classnames: str
    """Text file with the class names of the reference, one in each line."""

    add_to_pool: bool
    """Whether every training on a split also uses the reference, as in the paper."""


@dataclass(frozen=True, config=STRICT)
class BenchmarksParameters:
    """The labelled test sets."""

    path: str
    """Folder that contains one folder for each benchmark."""

    names: Annotated[list[SetName], Field(min_length=1), AfterValidator(unique)]
    """Names of the benchmarks, which are the names of the folders in `path`."""

    query_fraction: Annotated[float, Field(gt=0, le=1)]
    """Share of each benchmark's images that pruning rules use as queries. The other images are held out."""

    query_seed: NonNegativeInt
    """Seed that decides which images are queries."""

    accepted_licences: list[str]
    """Benchmarks whose licence restricts the use in pruning rules, and whose use you allow nevertheless."""
