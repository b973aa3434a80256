"""Write the files of a synthetic study of any size, with random numbers in place of results.

The measuring programs and the tests both need such a study. Tests may import `perf`, but `perf` imports nothing from the
tests. Therefore this module belongs to `perf`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from simgap.compare.compare import compare
from simgap.compare.metrics import flat_metrics
from simgap.compare.outcomes import Outcomes
from simgap.compare.tables import long_tables, write_tables
from simgap.core.files import write_json
from simgap.leaks.leaks import AnnotatedCopies, find_leaks
from simgap.params.compare import CompareParameters
from simgap.params.leaks import LeakParameters
from simgap.report.inputs import Folders, ReportInputs
from simgap.store.split import Split

ROWS, CLASSES, NEIGHBOURS = 10_000, 10, 10
MARGIN = 0.05
STYLES = ("photo", "sketch", "off_topic")


def make_splits(count: int, benchmarks: list[str]) -> dict[str, Split]:
    """Return `count` splits by name.

    The splits are the full split, the reference alone, imagenet-like splits with controls, and a small split. If the number of
    imagenet-like splits and controls is odd, the last control is a matched control of the first imagenet-like split.
    """

    def split(
        rule: str, kept: int, used: list[str], threshold: float | None = None, controls: str | None = None
    ) -> Split:
        parameters = {"match": "class"} if rule == "matched" else {}
        return Split(rule, parameters, used, threshold, kept, ROWS + 10, "", True, "rows", controls)

    splits = {"full": split("full", ROWS, []), "reference-only": split("random", 0, [])}
    between = max(0, count - 3)
    for number in range(between):
        if number % 2:
            name = f"pruned-{number - 1}"
            splits[f"{name}-control"] = split("random", splits[name].kept, [], controls=name)
        elif 1 < between == number + 1:
            splits["pruned-0-matched"] = split("matched", splits["pruned-0"].kept, [], controls="pruned-0")
        else:
            kept = ROWS // 2 + 100 * number
            splits[f"pruned-{number}"] = split("imagenet-like", kept, [benchmarks[number // 2 % len(benchmarks)]], 0.0)
    splits["quarter"] = split("dissimilar", ROWS // 4, benchmarks[:-1])
    return splits


def outcomes_of(splits: dict[str, Split], benchmarks: list[str], seeds: int, queries: int) -> Outcomes:
    """Return random outcomes of a synthetic study.

    The full split is more accurate than the reference alone. A pruned split is less accurate on the benchmarks of its rule.
    """
    random = np.random.default_rng(0)

    def drawn(split: Split, benchmark: str) -> Any:
        rate = 0.2 if split.kept == 0 else 0.4 if benchmark in split.benchmarks else 0.8
        return random.random((seeds, queries)) < rate

    places = [(split, benchmark) for split in splits for benchmark in benchmarks]
    return Outcomes(
        splits,
        ROWS,
        benchmarks,
        list(range(seeds)),
        {name: np.arange(queries) % CLASSES for name in benchmarks},
        {name: np.arange(queries) % 2 == 0 for name in benchmarks},
        {name: random.random(queries) < 0.1 for name in benchmarks},
        {(split, benchmark): drawn(splits[split], benchmark) for split, benchmark in places},
        {},
        {place: random.uniform(0.6, 1, queries) for place in places},
        {(*place, shots): random.random((seeds, 3)) for place in places for shots in (1, 2, 4, 8, 16)},
    )


def write_columns(folder: Path, splits: dict[str, Split], benchmarks: list[str], queries: int) -> None:
    """Write the table of queries, the profiles and the class names of each benchmark."""
    random = np.random.default_rng(1)
    for benchmark in benchmarks:
        nearest = -np.sort(-random.uniform(0.6, 1, (queries, NEIGHBOURS)).astype(np.float32), axis=1)
        place = folder / "similarity" / benchmark
        place.mkdir(parents=True)
        columns = {
            "reference_similarity": pa.array(random.uniform(0.5, 0.9, queries).astype(np.float32)),
            "pool_similarity": pa.array(nearest[:, 0]),
            "nearest_similarities": pa.array(list(nearest)),
        }
        pq.write_table(pa.table(columns), place / "queries.parquet")
        names = folder / "benchmarks" / benchmark
        names.mkdir(parents=True)
        (names / "classnames.txt").write_text("".join(f"class {number}\n" for number in range(CLASSES)))
        for name, split in splits.items():
            place = folder / "profiles" / name
            (place / "classes").mkdir(parents=True, exist_ok=True)
            lower = nearest - np.float32(0.1) if split.kept else np.empty((queries, 0), np.float32)
            similarity = pa.array(lower[:, 0]) if split.kept else pa.nulls(queries, pa.float32())
            lists = pa.array(list(lower), pa.list_(pa.float32()))
            pq.write_table(
                pa.table({"similarity": similarity, "nearest_similarities": lists}), place / f"{benchmark}.parquet"
            )
            full_rows = np.full(CLASSES, ROWS // CLASSES)
            counts = {
                "label": np.arange(CLASSES),
                "rows_of_full": full_rows,
                "kept": random.binomial(full_rows, split.kept / ROWS),
            }
            pq.write_table(pa.table(counts), place / "classes" / f"{benchmark}.parquet")


def write_metrics(folder: Path, splits: dict[str, Split], outcomes: Outcomes) -> None:
    """Write the metrics that the report reads, but not the metrics of the comparison stage."""
    random = np.random.default_rng(2)
    queries = {name: len(labels) for name, labels in outcomes.labels.items()}
    for name, split in splits.items():
        content = {**asdict(split), "kept_share_of_full": split.kept / ROWS}
        if split.rule == "imagenet-like":
            content["degenerate"] = False
            curve = {t: round(ROWS * max(0.0, 0.5 - 2 * t)) for t in (-0.1, 0.0, 0.1, 0.3)}
            write_json(folder / "profile" / f"{name}.json", {f"rows_pruned_at/{t}": n for t, n in curve.items()})
        write_json(folder / "prune" / f"{name}.json", content)
        for seed in outcomes.seeds:
            loss = [[step, 4 / (1 + step / 100) + random.uniform(0, 0.2)] for step in range(0, 1000, 5)]
            metrics = {
                "samples": split.kept,
                "samples_seen": 100_000,
                "epochs": 1.5,
                "steps": 1000,
                "loss_final": loss[-1][1],
            }
            write_json(folder / "train" / f"{name}-{seed}.json", {**metrics, "loss": loss})
    for name in outcomes.benchmarks:
        quantities = ("reference_similarity_mean", "pool_similarity_mean", "queries_nearer_to_pool_share")
        content = dict(zip((*quantities, "rows_with_positive_margin_share"), random.random(4).tolist(), strict=True))
        write_json(folder / "similarity" / f"{name}.json", content)
    shares = {
        f"{split}/pruned_share/{kind}/{name}": random.random()
        for split in splits
        for kind, names in (("style", STYLES), ("class", [f"class {number}" for number in range(CLASSES)]))
        for name in names
    }
    write_json(folder / "ground-truth" / "annotated.json", shares)
    copies = {kind: random.uniform(0.9, 1, 50).astype(np.float32) for kind in ("exact", "near")}
    known = AnnotatedCopies(copies, {name: np.arange(count) < 10 for name, count in queries.items()})
    in_pool = {name: random.uniform(0.6, 1, count).astype(np.float32) for name, count in queries.items()}
    write_json(folder / "leaks" / "leaks.json", find_leaks(LeakParameters(None, 0.01), in_pool, known))


def write_galleries(folder: Path, splits: dict[str, Split], benchmarks: list[str], caption: str) -> None:
    """Write galleries with as many entries as the galleries stage writes. All entries use the same picture."""
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40), "teal").save(folder / "pool-0.jpg")
    entry = {"row": 0, "caption": caption, "image": "pool-0.jpg"}
    similar = {**entry, "similarity": 0.912345678}
    query = {**entry, "chosen": "random", "used_by_rule": True, "reference": similar, "pool": similar, "after": similar}
    content: dict[str, Any] = {"benchmarks": {}, "duplicates": [{**similar, "of": entry}] * 8}
    for name in benchmarks:
        split = next(
            (other for other, found in splits.items() if name in found.benchmarks and found.threshold is not None), None
        )
        pruned = {"split": split, "pruned": [{**similar, "margin": 0.1, "query": entry}] * 8} if split else {}
        content["benchmarks"][name] = {"queries": [query] * 12, **pruned}
    write_json(folder / "galleries.json", content)


def write_study(
    folder: Path, splits: int, benchmarks: int, seeds: int = 3, queries: int = 200, caption: str = "a picture"
) -> ReportInputs:
    """Write the results of a synthetic study, and return the inputs of the report for this study."""
    names = ["val", "sketch", "r", "a", "v2", "objectnet"][:benchmarks]
    names += [f"benchmark-{number}" for number in range(len(names), benchmarks)]
    made = make_splits(splits, names)
    outcomes = outcomes_of(made, names, seeds, queries)
    comparison = compare(CompareParameters(200, 0, MARGIN, names[0]), outcomes)
    write_json(folder / "metrics" / "compare" / "compare.json", flat_metrics(outcomes, comparison))
    tables = folder / "report" / "tables"
    tables.mkdir(parents=True)
    write_tables(long_tables(outcomes, comparison), tables)
    write_columns(folder / "data", made, names, queries)
    write_metrics(folder / "metrics", made, outcomes)
    write_galleries(folder / "report" / "galleries", made, names, caption)
    return read_study(folder, made, names, seeds)


def read_study(folder: Path, splits: dict[str, Split], benchmarks: list[str], seeds: int) -> ReportInputs:
    """Return the inputs of the report for a study that `write_study` wrote."""
    data, results = folder / "data", folder / "report"
    folders = Folders(
        folder / "metrics",
        results / "tables",
        results / "galleries",
        data / "profiles",
        data / "similarity",
        data / "benchmarks",
    )
    pruned = [name for name, split in splits.items() if split.rule == "imagenet-like"]
    return ReportInputs(folders, list(splits), pruned, benchmarks, list(range(seeds)), ["annotated"], benchmarks[0])
