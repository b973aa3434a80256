"""Gather the sizes of the data of a study.

The user gives a size, or the program counts it in the data and metrics of the study. All other sizes are assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simgap.core.errors import SimgapError
from simgap.data.manifest import MANIFEST, read_manifest
from simgap.embed.imported import VECTORS
from simgap.params.schema import Params
from simgap.plan.numbers import Numbers
from simgap.tracking.provenance import Lock

# A plan assumes the sizes of LAION-400M if the pool does not exist yet. In the paper, this pool had 10 TB in shards of
# 256-pixel images.
LAION_SAMPLES = 407_000_000
LAION_SHARDS = 41_455
LAION_SAMPLE_BYTES = 24_600
# A plan assumes that deduplication keeps this share of the rows. The paper kept 200 million rows of LAION-400M.
FULL_SHARE = 0.5
# A plan assumes the public sizes of ImageNet and its benchmarks for data that does not exist yet.
REFERENCE_SAMPLES = 1_281_167
REFERENCE_CLASSES = 1000
LABELLED_SAMPLE_BYTES = 110_000
QUERIES = {"val": 50_000, "sketch": 50_889, "r": 30_000, "a": 7_500, "v2": 10_000, "objectnet": 18_574}
OTHER_QUERIES = 10_000
# The plan computes the number of parts of an import from this number, because clip-retrieval writes this many rows into
# each part.
IMPORTED_PART_ROWS = 1_000_000

# These are the names of the sizes in the arguments of `gather` and in the printed plan.
SAMPLES, SHARDS, SAMPLE_BYTES, ROWS = "pool samples", "pool shards", "bytes of a pool sample", "pool rows"
SHARE_OF_FULL, REFERENCE, CLASSES = "share of rows in full", "reference samples", "reference classes"


@dataclass(frozen=True)
class Sizes:
    """The sizes of the data of a study.

    Attributes:
        samples: Number of samples of the pool.
        shards: Number of shards of the pool.
        sample_bytes: Bytes of one pool sample in a tar file, including its caption.
        rows: Number of embedded samples of the pool.
        full: Number of rows that deduplication keeps.
        imported_parts: Number of parts of imported embeddings. The value is 0 if the study embeds the images of the
            pool.
        reference: Number of images of the reference.
        reference_bytes: Bytes of the shards of the reference.
        classes: Number of classes of the reference.
        queries: Number of images of each benchmark.
        query_bytes: Bytes of the shards of all benchmarks.
        kept: Number of pool rows of each split that already exists.
        table: Tuple (name, value, source) of each size, for the printed plan.
    """

    samples: float
    shards: float
    sample_bytes: float
    rows: float
    full: float
    imported_parts: int
    reference: float
    reference_bytes: float
    classes: float
    queries: dict[str, float]
    query_bytes: float
    kept: dict[str, int]
    table: list[tuple[str, float, str]]


def queries_of(benchmark: str) -> str:
    """Return the name of the size that counts the queries of a benchmark."""
    return f"queries of {benchmark}"


def _metrics_folder(params: Params, root: Path) -> Path | None:
    """Return the folder with the metrics of the study.

    The result is None if the study has no dvc.lock, or if the metrics describe another pool.

    Raises:
        SimgapError: The file `dvc.lock` is damaged.
    """
    lock = root / "dvc.lock"
    embedded = Lock(lock).maker(Path("metrics/embed/pool.json")) if lock.is_file() else None
    if embedded is None or params.pool.embed not in [dep["path"] for dep in embedded["deps"]]:
        return None
    return root / "metrics"


def _imported_rows(folder: Path) -> list[int]:
    """Count the rows in each part of the embeddings in a folder.

    Raises:
        SimgapError: A part is not a NumPy array.
    """
    rows = []
    for path in sorted((folder / VECTORS).glob("*.npy")):
        try:
            rows.append(len(np.load(path, mmap_mode="r", allow_pickle=False)))
        except (ValueError, EOFError, OSError, TypeError) as error:
            raise SimgapError(f"{path}: not a NumPy array ({error}); copy or download the file again") from None
    return rows


def _tars(folder: Path) -> list[int]:
    """Return the size of each shard of a folder in bytes.

    If the shards are in an object store, the folder has a manifest. The sizes then come from the manifest.
    """
    if (folder / MANIFEST).is_file():
        return [shard.size for shard in read_manifest(folder / MANIFEST)]
    return [path.stat().st_size for path in folder.rglob("*.tar")]


def _count_pool(params: Params, root: Path, metrics: Path | None) -> tuple[dict[str, float], dict[str, int]]:
    """Count the sizes that depend on the pool.

    Args:
        params: The params file.
        root: Folder of the repository.
        metrics: Folder of the metrics of the study. None if there are no metrics.

    Returns:
        The counted sizes by name, and the number of rows of each split that exists.

    Raises:
        SimgapError: A metrics file or an array is damaged.
    """
    counted: dict[str, float] = {}
    kept: dict[str, int] = {}
    if imported := sum(_imported_rows(root / params.pool.embed)):
        counted = {SAMPLES: imported, ROWS: imported}
    if metrics is not None and (metrics / "embed" / "pool.json").is_file():
        embedded = Numbers(metrics / "embed" / "pool.json")
        counted = {SAMPLES: embedded.count("read"), ROWS: embedded.count("kept")}
        splits = ["full", *(name for rule in params.prune.rules().values() for name in rule)]
        files = {split: metrics / "prune" / f"{split}.json" for split in splits}
        kept = {split: Numbers(file).count("kept", 0) for split, file in files.items() if file.is_file()}
        if "full" in kept:
            counted[SHARE_OF_FULL] = kept.pop("full") / counted[ROWS]
    return counted, kept


def _count_sets(params: Params, root: Path, metrics: Path | None) -> dict[str, float]:
    """Count the images of the reference and of each benchmark, and count the classes.

    Returns:
        The counted sizes by name. Sets that are not embedded yet are skipped.

    Raises:
        SimgapError: A metrics file is damaged.
    """
    names = {REFERENCE: "reference", **{queries_of(name): name for name in params.benchmarks.names}}
    files = {size: metrics / "embed" / f"{name}.json" for size, name in names.items()} if metrics else {}
    counted: dict[str, float] = {size: Numbers(file).count("kept") for size, file in files.items() if file.is_file()}
    classnames = root / params.reference.classnames
    if classnames.is_file():
        counted[CLASSES] = max(1, classnames.read_bytes().count(b"\n"))
    return counted


def _drawn(params: Params) -> dict[str, float]:
    """Return the sizes of the toy world that `params.draw` describes. Return no sizes if the params describe no toy world."""
    world = params.draw.get(Path(params.pool.path).parent.name)
    if world is None:
        return {}
    queries = {queries_of(name): world.queries for name in params.benchmarks.names}
    return {SAMPLES: world.pool, REFERENCE: world.reference, **queries}


def gather(params: Params, given: Mapping[str, float], root: Path = Path()) -> Sizes:
    """Gather the sizes of a study.

    A size from the user has priority over a counted size. A counted size has priority over a size from `params.draw`.
    All other sizes are assumed.

    Args:
        params: The params file.
        given: Sizes from the user, by name. The names are constants of this module, for example `SAMPLES`.
        root: Folder of the repository.

    Returns:
        The sizes.

    Raises:
        SimgapError: A metrics file, `dvc.lock` or an array is damaged.
    """
    metrics = _metrics_folder(params, root)
    # The existing pool is not counted if the user gives the number of samples, because the plan is then for another
    # pool.
    pool_sizes, kept = ({}, {}) if SAMPLES in given else _count_pool(params, root, metrics)
    counted = {**pool_sizes, **_count_sets(params, root, metrics)}
    sources = {"given": given, "counted": counted, "drawn": _drawn(params)}
    table: list[tuple[str, float, str]] = []

    def size(name: str, assumed: float, source: str) -> float:
        known = [(values[name], known_source) for known_source, values in sources.items() if name in values]
        table.append((name, *(known or [(assumed, f"assumed, {source}")])[0]))
        return table[-1][1]

    samples = size(SAMPLES, LAION_SAMPLES, "LAION-400M")
    if SAMPLES not in given and (tars := _tars(root / params.pool.path)):
        counted |= {SHARDS: len(tars), SAMPLE_BYTES: sum(tars) / samples}
    shards = size(SHARDS, max(1, round(samples / LAION_SAMPLES * LAION_SHARDS)), "LAION-400M")
    sample_bytes = size(SAMPLE_BYTES, LAION_SAMPLE_BYTES, "LAION-400M")
    rows = size(ROWS, samples, "all samples")
    without_rule = params.deduplicate.eps is None
    share = size(SHARE_OF_FULL, *((1.0, "no deduplication") if without_rule else (FULL_SHARE, "LAION-400M")))
    imported = _imported_rows(root / params.pool.embed)
    # The study imports embeddings if these exist in `pool.embed`. They may not exist yet. The plan then assumes an
    # import if `pool.embed` is not the folder of the pool and contains no shards.
    imports = imported or (params.pool.embed != params.pool.path and not _tars(root / params.pool.embed))
    parts = len(imported) if imported and SAMPLES not in given else math.ceil(rows / IMPORTED_PART_ROWS)
    reference = size(REFERENCE, REFERENCE_SAMPLES, "ImageNet-Train")
    classes = size(CLASSES, REFERENCE_CLASSES, "ImageNet")
    queries = {
        name: size(queries_of(name), QUERIES.get(name, OTHER_QUERIES), "the public dataset")
        for name in params.benchmarks.names
    }
    return Sizes(
        samples=samples,
        shards=shards,
        sample_bytes=sample_bytes,
        rows=rows,
        full=round(share * rows),
        imported_parts=parts if imports else 0,
        reference=reference,
        reference_bytes=sum(_tars(root / params.reference.path)) or reference * LABELLED_SAMPLE_BYTES,
        classes=classes,
        queries=queries,
        query_bytes=sum(_tars(root / params.benchmarks.path)) or sum(queries.values()) * LABELLED_SAMPLE_BYTES,
        kept=kept,
        table=table,
    )
