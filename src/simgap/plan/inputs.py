"""What a plan is told of a study's data: counted where the data are there, else given or assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from simgap.core.errors import SimgapError
from simgap.data.manifest import MANIFEST, read_manifest
from simgap.embed.imported import VECTORS
from simgap.params.schema import Params
from simgap.plan.numbers import LARGEST, Numbers
from simgap.store.arrays import read_array

# LAION-400M as the study had it, in shards of 256-pixel images: ten terabytes.
LAION_SAMPLES = 407_000_000
LAION_SHARDS = 41_455
LAION_SAMPLE_BYTES = 24_600
# Of the rows embedded, those that deduplication leaves: LAION-200M of LAION-400M.
FULL_SHARE = 0.5
# ImageNet's training set and its relatives, as they are downloaded.
REFERENCE_SAMPLES = 1_281_167
REFERENCE_CLASSES = 1000
LABELLED_SAMPLE_BYTES = 110_000
QUERIES = {"val": 50_000, "sketch": 50_889, "r": 30_000, "a": 7_500, "v2": 10_000, "objectnet": 18_574}
OTHER_QUERIES = 10_000
# Rows of a part, as clip-retrieval writes embeddings that are imported.
IMPORTED_PART_ROWS = 1_000_000


@dataclass(frozen=True)
class Inputs:
    """Sizes of a study's data.

    Attributes:
        samples, shards, sample_bytes: of the pool; a sample's bytes with its captions and its share of the tar.
        imported_parts: of embeddings of the pool that are imported; 0 where the stage embeds the pool's images.
        rows: rows of the pool that are embedded or imported.
        full: rows that deduplication leaves.
        reference, reference_bytes: images of the reference, and bytes of them all.
        classes: of the reference.
        queries, query_bytes: images of each benchmark, and bytes of them all.
        kept: pool rows of splits that were made already.
        sources: where each figure comes from.
    """

    samples: int
    shards: int
    sample_bytes: float
    imported_parts: int
    rows: int
    full: int
    reference: int
    reference_bytes: float
    classes: int
    queries: dict[str, int]
    query_bytes: float
    kept: dict[str, int]
    sources: dict[str, str]


@dataclass(frozen=True)
class Given:
    """What is said on the command line; None where nothing is."""

    samples: int | None = None
    shards: int | None = None
    sample_bytes: float | None = None
    full_share: float | None = None
    reference: int | None = None
    queries: dict[str, int] | None = None

    def check(self, params: Params) -> None:
        """Raise SimgapError where a value is out of range, or a benchmark is none of the study's."""
        options = {
            "--pool-samples": self.samples,
            "--pool-shards": self.shards,
            "--sample-bytes": self.sample_bytes,
            "--reference-samples": self.reference,
            **{f"--queries {name}": count for name, count in (self.queries or {}).items()},
        }
        for name, value in options.items():
            if value is not None and not 1 <= value <= LARGEST:
                raise SimgapError(f"{name}: {value} should be between 1 and {LARGEST:.0e}")
        if self.full_share is not None and not 0 < self.full_share <= 1:
            raise SimgapError(f"--full-share: {self.full_share} should be in (0, 1]")
        for name in self.queries or {}:
            if name not in params.benchmarks.names:
                raise SimgapError(f"--queries: {name!r} is unknown; choose from {', '.join(params.benchmarks.names)}")


def check_counts(params: Params) -> None:
    """Raise SimgapError where a number of the params file is so large that it can only be a slip."""

    def numbers(value: Any, place: str) -> Iterator[tuple[str, float]]:
        if is_dataclass(value):
            value = {field.name: getattr(value, field.name) for field in fields(value)}
        if isinstance(value, dict):
            for key, item in value.items():
                yield from numbers(
                    item, f"{place}.{key}" if place else str(key).replace("imagenet_like", "imagenet-like")
                )
        elif isinstance(value, list):
            for item in value:
                yield from numbers(item, place)
        elif isinstance(value, int | float) and not place.rpartition(".")[2].endswith(("seed", "seeds")):
            yield place, value

    for place, value in numbers(params, ""):
        if value > LARGEST:
            raise SimgapError(f"{place}: {value} should be {LARGEST:.0e} at most")


def _was_run(params: Params, root: Path) -> bool:
    """Say whether the metrics in a folder are of this pool: of another preset's study they say nothing.

    Raises:
        SimgapError: `dvc.lock` is no YAML.
    """
    lock = root / "dvc.lock"
    try:
        deps = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]["embed@pool"]["deps"]
        return any(dep["path"] == params.pool.embed for dep in deps)
    except (OSError, KeyError, TypeError):
        return False
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SimgapError(f"{lock}: not YAML ({' '.join(str(error).split())})") from None


def _imported_rows(folder: Path) -> list[int]:
    """Give the rows of each part of embeddings that are to be imported, where they are there.

    Raises:
        SimgapError: a part is no array.
    """
    rows = []
    for path in sorted((folder / VECTORS).glob("*.npy")):
        rows.append(len(read_array(path, shape=(None, None), mapped=True)))
    return rows


def _tars(folder: Path) -> list[int]:
    """Give the bytes of each shard in a folder, or of those that a manifest in it lists."""
    if (folder / MANIFEST).is_file():
        return [shard.size for shard in read_manifest(folder / MANIFEST)]
    return [path.stat().st_size for path in folder.rglob("*.tar")]


def _bytes(folder: Path) -> int:
    return sum(_tars(folder))


def gather(params: Params, given: Given, root: Path = Path()) -> Inputs:
    """Gather the sizes: what is given comes first, then the data and metrics of the study in `root`, then LAION-400M's.

    Raises:
        SimgapError: what is given is out of range, or a metrics file is damaged.
    """
    given.check(params)
    check_counts(params)
    sources: dict[str, str] = {}
    metrics = root / "metrics" if _was_run(params, root) else root / "no metrics"

    def metric(path: str, key: str, least: int = 1) -> Callable[[], Any]:
        file = metrics / path
        return lambda: Numbers(file).count(key, least=least) if file.is_file() else None

    def choose(name: str, said: Any, counted: Callable[[], Any], default: Any, reason: str) -> Any:
        value = said if said is not None else counted()
        if value is None:
            value, sources[name] = default, reason
        else:
            sources[name] = "given" if said is not None else "counted"
        return value

    def of_pool(count: Callable[[], Any]) -> Callable[[], Any]:
        # What is counted of one pool says nothing of another size.
        return count if given.samples is None else lambda: None

    pool, reference, benchmarks = (
        root / path for path in (params.pool.path, params.reference.path, params.benchmarks.path)
    )
    drawn = params.draw.get(Path(params.pool.path).parent.name)
    laion = "drawn" if drawn else "assumed, LAION-400M's"
    imported = _imported_rows(root / params.pool.embed)
    samples = choose(
        "pool samples",
        given.samples,
        lambda: metric("embed/pool.json", "read")() or sum(imported) or None,
        drawn.pool if drawn else LAION_SAMPLES,
        laion,
    )
    shards = choose(
        "pool shards", given.shards, of_pool(lambda: len(_tars(pool)) or None),
        max(1, round(samples / LAION_SAMPLES * LAION_SHARDS)), laion,
    )  # fmt: skip
    sample_bytes = choose(
        "bytes of a pool sample",
        given.sample_bytes,
        of_pool(lambda: _bytes(pool) / samples or None),
        LAION_SAMPLE_BYTES,
        laion,
    )
    rows = choose(
        "pool rows",
        given.samples,
        lambda: metric("embed/pool.json", "kept")() or sum(imported) or None,
        samples,
        "assumed, all samples",
    )
    # Another folder than the shards' holds embeddings of them, unless it is there and has shards.
    elsewhere = params.pool.embed != params.pool.path
    imports = bool(imported) or (elsewhere and not _tars(root / params.pool.embed))
    parts = len(imported) if given.samples is None else 0
    share = FULL_SHARE if given.full_share is None else given.full_share
    if params.deduplicate.eps is None:
        share = 1.0
    full = choose(
        "rows of full",
        round(share * rows) if given.full_share is not None else None,
        of_pool(metric("prune/full.json", "kept")),
        round(share * rows),
        f"assumed, {share:.0%} of the pool",
    )
    count = choose(
        "reference samples", given.reference, metric("embed/reference.json", "kept"),
        drawn.reference if drawn else REFERENCE_SAMPLES, "drawn" if drawn else "assumed, ImageNet-Train's",
    )  # fmt: skip
    names = root / params.reference.classnames
    classes = choose(
        "reference classes",
        None,
        lambda: names.read_bytes().count(b"\n") or None if names.is_file() else None,
        REFERENCE_CLASSES,
        "assumed, ImageNet's",
    )
    queries = {
        name: choose(
            f"queries of {name}",
            (given.queries or {}).get(name),
            metric(f"embed/{name}.json", "kept"),
            drawn.queries if drawn else QUERIES.get(name, OTHER_QUERIES),
            "drawn" if drawn else "assumed, the public data set's" if name in QUERIES else "assumed",
        )
        for name in params.benchmarks.names
    }
    kept = {
        name: found
        for rule in params.prune.rules().values()
        for name in rule
        if (found := metric(f"prune/{name}.json", "kept", 0)()) is not None and given.samples is None
    }
    return Inputs(
        samples,
        shards,
        sample_bytes,
        (parts or -(-rows // IMPORTED_PART_ROWS)) if imports else 0,
        rows,
        full,
        count,
        _bytes(reference) or count * LABELLED_SAMPLE_BYTES,
        classes,
        queries,
        _bytes(benchmarks) or sum(queries.values()) * LABELLED_SAMPLE_BYTES,
        kept,
        sources,
    )
