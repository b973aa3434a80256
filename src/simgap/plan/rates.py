"""How fast a machine works: measured by perf/*, logged by the stages of a finished study, or said of a card."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simgap.errors import SimgapError
from simgap.files import read_json, sha256_of
from simgap.params import load_params
from simgap.plan.models import embedder_size, model_size, size_of

# What one core did where docs/results.md was measured, for what was not measured on the machine that is asked about.
CORE = {
    "k-means": 60e9,  # FLOP a second, fp32
    "near-duplicates": 25e9,  # FLOP a second, fp32 products and what is decided of them
    "certificate": 30e9,  # FLOP a second, float64
    "decode": 250.0,  # images of 256 pixels a second, preprocessed too
}
MACHINE = {
    "prune": 1e9,  # similarity values a second
    "read": 1e9,  # bytes a second
    "start": 8.0,  # seconds until a stage's command works, and DVC's own between stages
}
FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class Rate:
    """What was done a second, of things that took `flop` each (1 where FLOP, values or bytes are counted)."""

    flop: float
    per_second: float
    source: str


@dataclass(frozen=True)
class Rates:
    """All that is known of a machine's speed.

    Attributes:
        by_work: rates of `embed` and `train` (samples), `similarity`, `k-means`, `near-duplicates` and `certificate`
            (FLOP), `decode` (images), `prune` (values), `read` (bytes); of `start`, seconds.
        card: whether embedding, training and similarity are a card's: there may be several, with as many cores each.
    """

    by_work: Mapping[str, tuple[Rate, ...]] = field(default_factory=dict)
    card: bool = False

    def find(self, work: str, flop: float = 1.0) -> Rate | None:
        """Give the rate of some work for things of `flop` each: the nearest that is known, scaled by FLOP."""
        known = self.by_work.get(work, ())
        if not known:
            return None
        nearest = min(known, key=lambda rate: abs(math.log(rate.flop / flop)))
        scale = nearest.flop / flop
        source = nearest.source if scale == 1 else f"{nearest.source}, scaled by {scale:.3g}"
        return Rate(flop, nearest.per_second * scale, source)

    def joined(self, other: Rates) -> Rates:
        """Give both, where `other` comes first: work that it knows is not looked up here."""
        return Rates({**self.by_work, **other.by_work}, self.card or other.card)


def assumed(cores: int) -> Rates:
    """Give the rates for what nobody measured: reading, starting, and what processors do, on so many cores."""
    of_cores = {
        work: (Rate(1.0, rate * cores, f"assumed, {rate:.3g} a core times {cores}"),) for work, rate in CORE.items()
    }
    return Rates({**of_cores, **{work: (Rate(1.0, rate, "assumed"),) for work, rate in MACHINE.items()}})


def of_card(tflops: float, utilisation: float) -> Rates:
    """Give what a card does that multiplies `tflops` 1e12 FLOP a second at most, of which a share is used, in (0, 1].

    Raises:
        SimgapError: a value is out of range.
    """
    if not (math.isfinite(tflops) and tflops > 0):
        raise SimgapError(f"--card-tflops: {tflops} should be above 0")
    if not 0 < utilisation <= 1:
        raise SimgapError(f"--utilisation: {utilisation} should be in (0, 1]")
    rate = Rate(1.0, tflops * 1e12 * utilisation, f"a card of {tflops:g} TFLOP/s, {utilisation:.0%} of them used")
    return Rates(dict.fromkeys(("embed", "train", "similarity"), (rate,)), card=True)


def training_flop(image_flop: float, text_flop: float) -> float:
    """Give the FLOP of a sample of a training step: the backward pass is two forward passes."""
    return FORWARD_AND_BACKWARD * (image_flop + text_flop)


def _similarity(content: dict[str, Any], where: str) -> dict[str, list[Rate]]:
    flop = 2.0 * content["rows"] * content["queries"] * content["dim"]
    engines = {name: seconds for name, seconds in content["medians"].items() if "engine" in name}
    on_card = {name: seconds for name, seconds in engines.items() if name.startswith("GPU")}
    return {"similarity": [Rate(1.0, flop / min((on_card or engines).values()), where)]}


def _embed(content: dict[str, Any], where: str) -> dict[str, list[Rate]]:
    found = []
    for name, of_model in content["models"].items():
        size = model_size("presets/models/toy.json" if name == "toy" else name)
        found.append(Rate(size.image_flop, of_model["images_per_second"]["simgap"], f"{where}, {name}"))
    return {"embed": found}


def _train(content: dict[str, Any], where: str) -> dict[str, list[Rate]]:
    model = content["model"]
    size = size_of(model) if isinstance(model, dict) else model_size(model)
    return {
        "train": [Rate(training_flop(size.image_flop, size.text_flop), content["medians"]["simgap"], where)],
    }


def _prune(content: dict[str, Any], where: str) -> dict[str, list[Rate]]:
    slowest = max(rule["seconds"] / rule["rows"] for rule in content["rules"].values())
    return {"prune": [Rate(1.0, content["benchmarks"] / slowest, where)]}


def _deduplicate(content: dict[str, Any], where: str) -> dict[str, list[Rate]]:
    # Of the rows whose cost is measured, which come last.
    steps = {step["step"]: step for step in content["steps"]}
    dim = content["dim"]
    within = steps["within clusters"]
    flop = within_clusters_flop(within["rows"], within["clusters"], dim)
    return {"near-duplicates": [Rate(1.0, flop / within["seconds"], where)]}


def within_clusters_flop(rows: float, clusters: int, dim: int) -> float:
    """Give the FLOP of comparing each row with the lower ones of its cluster; clusters of one size, which is the least."""
    return rows * (rows / clusters) / 2 * 2 * dim


# By keys that only the JSON of one program has.
FORMATS = {
    "models": ("perf.embed", _embed),
    "rules": ("perf.prune", _prune),
    "block_rows": ("perf.deduplicate", _deduplicate),
    "neighbours": ("perf.similarity", _similarity),
    "workers": ("perf.train", _train),
}


def measured(paths: Iterable[Path]) -> Rates:
    """Read what `python -m perf.similarity`, `embed`, `train`, `prune` or `deduplicate` wrote with `--json`.

    Raises:
        SimgapError: a file is none of theirs.
    """
    found: dict[str, list[Rate]] = {}
    for path in paths:
        content = read_json(path)
        known = [name for name in FORMATS if isinstance(content, dict) and name in content]
        if not known:
            programs = ", ".join(program for program, _ in FORMATS.values())
            raise SimgapError(f"--rates: {path} is not what one of {programs} writes with --json")
        program, read = FORMATS[known[0]]
        try:
            rates = read(content, program)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise SimgapError(f"--rates: {path} is not what {program} writes with --json ({error!r})") from None
        for work, of_work in rates.items():
            found.setdefault(work, []).extend(of_work)
    return Rates({work: tuple(of_work) for work, of_work in found.items()})


def logged(study: Path) -> Rates:
    """Read what the stages of a finished study logged: its images and samples a second, in all over all the time.

    Raises:
        SimgapError: the folder has no params file, or no log of its metrics.
    """
    params = load_params(study / "params.yaml")
    size = model_size(params.train.model)
    flop = {
        "embed": float(embedder_size(params.embedder).image_flop),
        "train": training_flop(size.image_flop, size.text_flop),
    }
    found = {}
    for work, of_run in flop.items():
        unit = {"embed": "images", "train": "samples"}[work]
        logs = [rates for _, rates in stage_logs(study, work)]
        seconds = sum(log["seconds"] for log in logs)
        if seconds:
            done = sum(log[f"{unit}_per_second"] * log["seconds"] for log in logs)
            found[work] = (Rate(of_run, done / seconds, f"logs of {len(logs)} stages"),)
    if not found:
        raise SimgapError(f"--study: {study} has no logs of its metrics; a study logs its rates where it runs")
    return Rates(found)


def stage_logs(study: Path, work: str) -> list[tuple[str, dict[str, float]]]:
    """Give the names of stages of `embed` or `train`, and their rates, of those metrics in a study that have a log."""
    found = []
    for metrics in sorted((study / "metrics" / work).glob("*.json")):
        log = study / "logs" / f"{metrics.stem}-{sha256_of(metrics)[:16]}.json"
        if log.is_file():
            found.append((metrics.stem, read_json(log)))
    return found
