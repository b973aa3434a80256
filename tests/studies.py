"""Run studies in temporary repositories, and check their results."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from conftest import MODEL_CONFIG, REPOSITORY

from simgap.store.embeddings import Embeddings
from simgap.store.split import read_keep, read_split

ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("DVC_")},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org",
    "DVC_NO_ANALYTICS": "1",
}  # fmt: skip


def run(folder: Path, *command: str) -> str:
    """Run a command and return its output; if it fails, show the output."""
    finished = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


def start(folder: Path, stage: str, *options: str) -> subprocess.Popen[str]:
    """Start a stage in a folder with the code of this repository."""
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{REPOSITORY}", "DVC_ROOT": str(folder)}
    command = [sys.executable, "-m", f"stages.{stage}", *options]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def call(folder: Path, stage: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a stage in a folder and wait for it."""
    with start(folder, stage, *options) as running:
        output, errors = running.communicate()
        return subprocess.CompletedProcess(running.args, running.returncode, output, errors)


def put_params(folder: Path, **changes: object) -> None:
    """Write the params of the toy study, with some blocks replaced, and the model configs that they name."""
    content = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    shutil.copytree(REPOSITORY / "presets" / "models", folder / "presets" / "models")


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def repository(folder: Path, preset: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy the working tree, without results, into a git repository with changed params."""
    files = run(REPOSITORY, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in files:
        if (
            (REPOSITORY / name).is_file()
            and not name.startswith(("code/", "metrics/", "tests/"))
            and name != "dvc.lock"
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    (folder / "presets" / "models" / "tiny.json").write_text(json.dumps(MODEL_CONFIG))
    content = yaml.safe_load((REPOSITORY / "presets" / f"{preset}.yaml").read_text())
    change(content)
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    run(folder, "git", "init", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "state")


def miniature(content: dict[str, Any]) -> None:
    """Reduce a study to two benchmarks, four trained splits and a pool of 600."""
    content["draw"]["toy"].update(pool=600, reference=60, queries=30, image_size=24, planted=3, broken=2)
    content["benchmarks"]["names"] = ["val", "sketch"]
    content["benchmarks"]["query_fraction"] = 0.5
    rules = content["prune"]
    rules["imagenet-like"] = {"val-pruned": {"benchmarks": ["val"]}, "sketch-pruned": {"benchmarks": ["sketch"]}}
    rules["dissimilar"] = {"nearest-quarter": {"benchmarks": ["val", "sketch"], "join": "max", "keep": 0.25}}
    rules["similar"] = {"similar-quarter": {"benchmarks": ["val"], "join": "mean", "keep": 0.25}}
    rules["random"] = {
        "sketch-pruned-control": {"size_of": "sketch-pruned", "keep": 1.0, "seed": 0},
        "reference-only": {"size_of": "full", "keep": 0, "seed": 0},
    }
    rules["matched"] = {"sketch-pruned-matched": {"size_of": "sketch-pruned", "match": "class", "seed": 0}}
    content["runs"] = {"full": {}, "reference-only": {}, "sketch-pruned": {}, "sketch-pruned-control": {}}
    for training in (content["train"], content["embedder"]["train"]):
        training.update(model="presets/models/tiny.json", samples_seen=256, batch_size=32)
    content["deduplicate"].update(clusters=3)
    content["evaluate"]["few_shot"]["shots"] = [1]


def annotated(content: dict[str, Any], match: str) -> str | None:
    """Return the class or style of a sample from its JSON. In PACS it is a folder in the path of the source."""
    if match in content:
        return content[match]
    parts = content["source"].split("/")
    return parts[{"style": 1, "class": 2}[match]] if parts[0] == "PACS" and len(parts) > 2 else None


def check_against_naive(folder: Path) -> None:
    """Check columns, splits and profiles against values computed from the stored embeddings, query by query in float64."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    embeddings = folder / "data" / "embeddings"
    pool = Embeddings(embeddings / "pool").read().astype(np.float64)
    reference = Embeddings(embeddings / "reference").read().astype(np.float64)
    margins, bests, all_queries, rule_queries, references = {}, {}, {}, {}, {}
    for benchmark in params["benchmarks"]["names"]:
        queries = all_queries[benchmark] = Embeddings(embeddings / benchmark).read().astype(np.float64)
        table = pq.read_table(folder / "data" / "similarity" / benchmark / "queries.parquet").to_pydict()
        used = np.flatnonzero(table["used_by_rule"])
        assert len(used) == max(1, round(params["benchmarks"]["query_fraction"] * len(queries)))
        best, margin = np.full(len(pool), -np.inf), np.full(len(pool), -np.inf)
        nearest = np.zeros(len(pool), int)
        references[benchmark] = np.array([(reference @ query).max() for query in queries])
        for query in used:
            similarity = pool @ queries[query]
            nearest[similarity > best] = query
            best = np.maximum(best, similarity)
            margin = np.maximum(margin, similarity - references[benchmark][query])
        stored = {
            c: np.load(folder / "data" / "similarity" / benchmark / f"{c}.npy")
            for c in ("best", "margin", "nearest_query")
        }
        assert np.array_equal(stored["best"], best.astype(np.float32))
        assert np.array_equal(stored["margin"], margin.astype(np.float32))
        assert np.array_equal(stored["nearest_query"], nearest)
        assert np.array_equal(np.float32(table["reference_similarity"]), references[benchmark].astype(np.float32))
        for query in range(len(queries)):
            similarity = pool @ queries[query]
            order = sorted(range(len(pool)), key=lambda row: (-similarity[row], row))
            assert table["nearest_rows"][query] == order[: params["similarity"]["neighbours"]]
        margins[benchmark], bests[benchmark] = stored["margin"], stored["best"]
        rule_queries[benchmark] = queries[used]
        references[benchmark] = references[benchmark][used]

    def keep_of(name: str) -> np.ndarray:
        return read_keep(folder / "data" / "splits" / name / "keep.npy", len(pool))

    full = keep_of("full")
    for name, rule in params["prune"]["imagenet-like"].items():
        expected = [
            full[row] and not any(float(margins[b][row]) > params["threshold"] for b in rule["benchmarks"])
            for row in range(len(pool))
        ]
        assert keep_of(name).tolist() == expected
        kept = pool[keep_of(name)]
        for benchmark in rule["benchmarks"]:
            for query, bound in zip(rule_queries[benchmark], references[benchmark], strict=True):
                assert np.float32((kept @ query).max() - bound) <= params["threshold"]
    for direction, most in (("dissimilar", True), ("similar", False)):
        for name, rule in params["prune"][direction].items():
            columns = np.stack([bests[b].astype(np.float64) for b in rule["benchmarks"]])
            joined = columns.max(axis=0) if rule["join"] == "max" else columns.mean(axis=0)
            count = int(rule["keep"] * full.sum())
            order = sorted(np.flatnonzero(full), key=lambda row: (-joined[row] if most else joined[row], row))
            assert np.flatnonzero(keep_of(name)).tolist() == sorted(order[:count])
    for name, rule in params["prune"]["random"].items():
        split = read_split(folder / "data" / "splits" / name)
        size = read_split(folder / "data" / "splits" / rule["size_of"]).kept
        assert keep_of(name).sum() == split.kept == int(rule["keep"] * size)
        assert not (keep_of(name) & ~full).any()
    table = pq.read_table(embeddings / "pool" / "metadata").to_pydict()
    annotations = {}
    for path in sorted((folder / params["pool"]["path"]).glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    annotations[path.name, member.name.removesuffix(".json")] = json.load(tar.extractfile(member))
    for name, rule in params["prune"]["matched"].items():
        assert not (keep_of(name) & ~full).any()
        named = [
            annotated(annotations[place], rule["match"]) for place in zip(table["shard"], table["key"], strict=True)
        ]
        counts = [Counter(np.array(named, object)[keep_of(split)]) for split in (name, rule["size_of"])]
        assert counts[0] == counts[1]
    for name in ["full", *(split for splits in params["prune"].values() for split in splits)]:
        kept = pool[keep_of(name)]
        for benchmark, queries in all_queries.items():
            table = pq.read_table(folder / "data" / "profiles" / name / f"{benchmark}.parquet")
            expected = [float(np.float32((kept @ query).max())) if len(kept) else None for query in queries]
            assert table.column("similarity").to_pylist() == expected
