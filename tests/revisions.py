"""Drawn studies as commits of a repository. Nothing is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from conftest import REPOSITORY
from dvc.repo import Repo
from studies import commit, run

BENCHMARKS = ("val", "sketch")
SPLITS = ("full", "reference-only", "sketch-pruned", "sketch-pruned-control", "sketch-pruned-matched")
FULL_ROWS = 1000


def params(threshold: float, seeds: list[int], **changes: Any) -> dict[str, Any]:
    """Return the params of a small study. `changes` name whole blocks, or keys of blocks as in `embedder__seed`."""
    content = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    content["threshold"] = threshold
    content["repeats"]["seeds"] = seeds
    content["benchmarks"] |= {"names": list(BENCHMARKS), "accepted_licences": []}
    content["prune"] = {
        "imagenet-like": {"sketch-pruned": {"benchmarks": ["sketch"]}},
        "dissimilar": {},
        "similar": {},
        "random": {
            "sketch-pruned-control": {"size_of": "sketch-pruned", "keep": 1.0, "seed": 0},
            "reference-only": {"size_of": "full", "keep": 0, "seed": 0},
        },
        "matched": {"sketch-pruned-matched": {"size_of": "sketch-pruned", "match": "class", "seed": 0}},
    }
    content["runs"] = {split: {} for split in SPLITS}
    for place, value in changes.items():
        block, _, key = place.partition("__")
        if key:
            content[block][key] = value
        else:
            content[block] = value
    return content


def accuracy(split: str, benchmark: str, threshold: float, seed: int) -> float:
    """Draw an accuracy. For some splits it does not depend on the threshold."""
    numbers = [SPLITS.index(split), BENCHMARKS.index(benchmark), seed]
    if split.startswith("sketch-pruned"):
        numbers.append(round(1000 * threshold))
    return round(float(np.random.default_rng(numbers).uniform(0.2, 0.8)), 4)


def rule_of(split: str, threshold: float) -> dict[str, Any]:
    """Return the metrics of a split's rule."""
    kept = {"full": FULL_ROWS, "reference-only": 0}.get(split, 600 + round(4000 * threshold))
    controls = "sketch-pruned" if split.startswith("sketch-pruned-") else None
    rules = {"full": "full", "sketch-pruned": "imagenet-like", "sketch-pruned-matched": "matched"}
    size_of = {"size_of": controls or "full"} if split not in ("full", "sketch-pruned") else {}
    content = {
        "rule": rules.get(split, "random"), "kept": kept, "controls": controls, "parameters": {"seed": 0, **size_of},
        "benchmarks": ["sketch"] if split == "sketch-pruned" else [],
        "threshold": threshold if split == "sketch-pruned" else None, "pool_rows": FULL_ROWS, "kept_description": "",
        "reference_rows": True, "row_order": "rows",
    }  # fmt: skip
    # Full comes from deduplication, which drops rows for another reason.
    return content | ({} if split == "full" else {"dropped/pruned": FULL_ROWS - kept})


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_metrics(folder: Path, threshold: float, seeds: list[int]) -> None:
    """Write the metrics of rules, evaluations and comparison."""
    compared: dict[str, Any] = {"seeds": len(seeds)}
    for split in SPLITS:
        write_json(folder / "metrics" / "prune" / f"{split}.json", rule_of(split, threshold))
        for seed in seeds:
            found = {f"zero_shot/{name}/top1": accuracy(split, name, threshold, seed) for name in BENCHMARKS}
            write_json(folder / "metrics" / "evaluate" / f"{split}-{seed}.json", found)
        for name in BENCHMARKS:
            mean = float(np.mean([accuracy(split, name, threshold, seed) for seed in seeds]))
            place = f"{split}/{name}/accuracy"
            compared |= {place: mean, f"{place}/low": round(mean - 0.07, 6), f"{place}/high": round(mean + 0.05, 6)}
            if split == "sketch-pruned":
                place = f"{split}/{name}/minus_control"
                compared |= {place: -0.1, f"{place}/low": -0.2 - threshold, f"{place}/high": 0.013}
    write_json(folder / "metrics" / "compare" / "compare.json", compared)


def repository(folder: Path) -> Path:
    """Create a git and DVC repository with the files that the check of `params.yaml` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    run(folder, "git", "init", "--quiet")
    Repo.init(str(folder)).close()
    shutil.copytree(REPOSITORY / "presets" / "models", folder / "presets" / "models")
    return folder


def add(folder: Path, name: str, threshold: float, seeds: list[int], **changes: Any) -> str:
    """Commit a study and tag the commit. Metrics of earlier commits stay if nothing overwrites them, as with DVC."""
    (folder / "params.yaml").write_text(yaml.safe_dump(params(threshold, seeds, **changes), sort_keys=False))
    write_metrics(folder, threshold, seeds)
    commit(folder)
    run(folder, "git", "tag", name)
    return name
