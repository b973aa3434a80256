"""How fast a machine works: measured by perf/*, logged by the stages of a finished study, or said of a card."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import sha256_of
from simgap.params.load import load_params
from simgap.params.schema import Params
from simgap.params.train import TrainParameters
from simgap.plan.models import embedder_size, model_size
from simgap.plan.numbers import LARGEST, Numbers

# What one core did where docs/results.md was measured, for what was not measured on the machine that is asked about.
CORE = {
    "k-means": 60e9,  # FLOP a second, fp32
    "near-duplicates": 25e9,  # FLOP a second, fp32 products and what is decided of them
    "certificate": 30e9,  # FLOP a second, float64
    "decode": 250.0,  # images of 256 pixels a second, preprocessed too
}
MACHINE = {
    "draw": 200.0,  # images of a toy world a second
    "import": 45e6,  # values of embeddings a second
    "marks": 5e3,  # samples whose marks are read a second
    "figure": 3.6,  # figures of a report a second
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
            (FLOP), `decode` and `draw` (images), `import` (rows, whose `flop` is their dimensions), `marks` (samples),
            `prune` (values), `figure`, `read` (bytes); of `start`, seconds.
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
        # Of single operations a rate holds for a thing of any number of them.
        source = nearest.source if nearest.flop in (1.0, flop) else f"{nearest.source}, scaled by {scale:.3g}"
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
    if not 1 / LARGEST <= tflops <= LARGEST:
        raise SimgapError(f"--card-tflops: {tflops} should be above 0, {LARGEST:.0e} at most")
    if not 1 / LARGEST <= utilisation <= 1:
        raise SimgapError(f"--utilisation: {utilisation} should be in (0, 1]")
    rate = Rate(1.0, tflops * 1e12 * utilisation, f"a card of {tflops:g} TFLOP/s, {utilisation:.0%} of them used")
    return Rates(dict.fromkeys(("embed", "train", "similarity"), (rate,)), card=True)


def training_flop(image_flop: float, text_flop: float, forward_again: int = 0) -> float:
    """Give the FLOP of a sample of a training step: the backward pass is two forward passes.

    Args:
        forward_again: how many forward passes there are besides the first, see `forward_again_of`.
    """
    return (FORWARD_AND_BACKWARD + forward_again) * (image_flop + text_flop)


def forward_again_of(of: TrainParameters) -> int:
    """Give how many more forward passes a training needs: for features where its share of a batch is of several
    micro-batches, and for activations that are computed anew.
    """
    return int(of.micro_batches(of.processes)[0] > 1) + int(of.grad_checkpointing)


def _similarity(of: Numbers, where: str) -> dict[str, list[Rate]]:
    flop = 2.0 * of.number("rows") * of.number("queries") * of.number("dim")
    engines = [name for name in _names(of, "medians") if "engine" in name]
    chosen = [name for name in engines if name.startswith("GPU")] or engines
    if not chosen:
        raise of.fault("medians", "has no engine")
    return {"similarity": [Rate(1.0, flop / min(of.number("medians", name) for name in chosen), where)]}


def _embed(of: Numbers, where: str) -> dict[str, list[Rate]]:
    found = []
    for name in _names(of, "models"):
        try:
            size = model_size("presets/models/toy.json" if name == "toy" else name)
        except SimgapError:
            raise of.fault(f"models.{name}", "is no model of open_clip") from None
        per_second = of.number("models", name, "images_per_second", "simgap")
        found.append(Rate(size.image_flop, per_second, f"{where}, {name}"))
    return {"embed": found}


def _train(of: Numbers, where: str) -> dict[str, list[Rate]]:
    return {"train": [Rate(of.number("flop_per_sample"), of.number("medians", "simgap"), where)]}


def _prune(of: Numbers, where: str) -> dict[str, list[Rate]]:
    slowest = max(
        of.number("rules", rule, "seconds") / of.number("rules", rule, "rows") for rule in _names(of, "rules")
    )
    return {"prune": [Rate(1.0, of.number("benchmarks") / slowest, where)]}


def _deduplicate(of: Numbers, where: str) -> dict[str, list[Rate]]:
    steps = of.value("steps")
    within = [
        number
        for number, step in enumerate(steps if isinstance(steps, list) else [])
        if isinstance(step, dict) and step.get("step") == "within clusters"
    ]
    if not within:
        raise of.fault("steps", "has no step 'within clusters'")
    # Of the rows whose cost is measured, which come last.
    rows, clusters, seconds = (of.number("steps", within[-1], key) for key in ("rows", "clusters", "seconds"))
    return {"near-duplicates": [Rate(1.0, within_clusters_flop(rows, clusters, of.number("dim")) / seconds, where)]}


def _names(of: Numbers, key: str) -> list[str]:
    """Give the names that a mapping has, one at least."""
    found = of.value(key)
    if not isinstance(found, dict) or not found:
        raise of.fault(key, f"{found!r} should be a mapping that is not empty")
    return list(found)


def within_clusters_flop(rows: float, clusters: float, dim: float) -> float:
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
        SimgapError: a file is none of theirs, or lacks a figure or has one that cannot be; the line names file and key.
    """
    found: dict[str, list[Rate]] = {}
    for path in paths:
        numbers = Numbers(path, "--rates")
        known = [name for name in FORMATS if isinstance(numbers.content, dict) and name in numbers.content]
        if not known:
            programs = ", ".join(program for program, _ in FORMATS.values())
            raise SimgapError(f"--rates: {path} is not what one of {programs} writes with --json")
        program, read = FORMATS[known[0]]
        for work, of_work in read(numbers, program).items():
            found.setdefault(work, []).extend(of_work)
    return Rates({work: tuple(of_work) for work, of_work in found.items()})


# What a stage's log says of its rate, and the work that it is of.
UNITS = {"images_per_second": "embed", "rows_per_second": "import", "samples_per_second": "train"}


@dataclass(frozen=True)
class StageLog:
    """What a stage logged: its instance, its work (see `Rates`), the things that it did a second, and for how long."""

    name: str
    work: str
    per_second: float
    seconds: float


def stage_logs(study: Path, stage: str) -> list[StageLog]:
    """Give what instances of `embed` or `train` logged, those of whose metrics in a study there is a log.

    Raises:
        SimgapError: a log is damaged.
    """
    found = []
    for metrics in sorted((study / "metrics" / stage).glob("*.json")):
        path = study / "logs" / f"{metrics.stem}-{sha256_of(metrics)[:16]}.json"
        if path.is_file():
            log = Numbers(path)
            unit = next((unit for unit in UNITS if isinstance(log.content, dict) and unit in log.content), None)
            if unit is None:
                raise log.fault(" or ".join(UNITS), "is missing")
            found.append(StageLog(metrics.stem, UNITS[unit], log.number(unit, zero=True), log.number("seconds")))
    return found


def _flop_of(params: Params, log: StageLog) -> float:
    if log.work == "embed":
        return float(embedder_size(params.embedder).image_flop)
    if log.work == "import":
        return float(embedder_size(params.embedder).dim)
    run = log.name.rpartition("-")[0]
    of = params.train_parameters(params.runs.get(run, {}), f"runs.{run}")
    size = model_size(of.model)
    return training_flop(size.image_flop, size.text_flop, forward_again_of(of))


def logged(study: Path, instances: Collection[str] = ()) -> Rates:
    """Read what the stages of a finished study logged: for models of equal FLOP, what they did in all over all the time.

    Args:
        instances: those of whose logs rates are made, as `pool` and `full-0`; all where none is named.

    Raises:
        SimgapError: the folder has no params file, no log of its metrics, or a damaged one.
    """
    params = load_params(study / "params.yaml")
    alike: dict[tuple[str, float], list[StageLog]] = {}
    for log in (*stage_logs(study, "embed"), *stage_logs(study, "train")):
        # A stage that found its work done says a rate of 0.
        if log.per_second and (not instances or log.name in instances):
            alike.setdefault((log.work, _flop_of(params, log)), []).append(log)
    if not alike:
        raise SimgapError(f"--study: {study} has no logs of its metrics; a study logs its rates where it runs")
    found: dict[str, tuple[Rate, ...]] = {}
    for (work, flop), logs in alike.items():
        done, seconds = sum(log.per_second * log.seconds for log in logs), sum(log.seconds for log in logs)
        source = f"logs of {len(logs)} stage{'s' if len(logs) > 1 else ''}"
        found[work] = (*found.get(work, ()), Rate(flop, done / seconds, source))
    return Rates(found)
