"""How fast a machine works: measured by perf, logged by a finished study, or computed from a card's peak."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from simgap.core.errors import SimgapError
from simgap.core.files import sha256_of
from simgap.params.load import load_params, train_parameters
from simgap.params.schema import Params
from simgap.params.train import TrainParameters
from simgap.plan.models import embedder_size, model_size
from simgap.plan.numbers import SMALLEST, Numbers, check_range
from simgap.train.train import micro_batches

# Rates of the machine of docs/results.md. They stand in for rates that are unknown on the machine of the plan.
DECODED_BY_CORE = 250.0  # images of 256 pixels a second, with their preprocessing
IMPORTED = 45e6  # components of embeddings a second
READ = 1e9  # bytes a second
# The backward pass takes as many FLOP as two forward passes.
FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class Rate:
    """How many things a machine does in a second.

    Attributes:
        flop: FLOP of one thing; components if embeddings are imported; 1 if FLOP, images or bytes are counted.
        per_second: Things done in a second.
        source: Where the rate comes from.
    """

    flop: float
    per_second: float
    source: str


@dataclass(frozen=True)
class Rates:
    """All that is known about a machine's speed.

    Attributes:
        by_work: Rates of `embed` and `train` (samples), `similarity` (FLOP), `import` (rows), `decode` (images) and `read`
            (bytes).
        card: Whether embedding, training and similarity run on a card, beside which processors decode.
    """

    by_work: Mapping[str, tuple[Rate, ...]] = field(default_factory=dict)
    card: bool = False

    def find(self, work: str, flop: float = 1.0) -> Rate | None:
        """Return the rate for things of `flop` each: the nearest known rate, scaled by FLOP. None if no rate is known."""
        known = self.by_work.get(work, ())
        if not known:
            return None
        nearest = min(known, key=lambda rate: abs(math.log(rate.flop / flop)))
        scale = nearest.flop / flop
        # A rate of single FLOP holds for things of any size.
        source = nearest.source if nearest.flop in (1.0, flop) else f"{nearest.source}, scaled by {scale:.3g}"
        return Rate(flop, nearest.per_second * scale, source)

    def joined(self, other: Rates) -> Rates:
        """Return both. If both know a work, the rates of `other` count."""
        return Rates({**self.by_work, **other.by_work}, self.card or other.card)


def assumed(cores: int) -> Rates:
    """Return rates of decoding, importing and reading for a machine with so many cores."""
    decode = Rate(1.0, DECODED_BY_CORE * cores, f"assumed, {DECODED_BY_CORE:g} a core on {cores} cores")
    return Rates(
        {"decode": (decode,), "import": (Rate(1.0, IMPORTED, "assumed"),), "read": (Rate(1.0, READ, "assumed"),)}
    )


def card_rates(tflops: float, utilisation: float) -> Rates:
    """Return the rates of a card.

    Args:
        tflops: Peak of the card in 1e12 FLOP a second.
        utilisation: Share of the peak that is reached, in (0, 1].

    Raises:
        SimgapError: A value is out of range.
    """
    check_range("--card-tflops", tflops, SMALLEST)
    check_range("--utilisation", utilisation, SMALLEST, 1)
    rate = Rate(1.0, tflops * 1e12 * utilisation, f"{utilisation:.0%} of a card's {tflops:g} TFLOP/s")
    return Rates(dict.fromkeys(("embed", "train", "similarity"), (rate,)), card=True)


def extra_forward_passes(parameters: TrainParameters, processes: int) -> int:
    """Return how many forward passes a training step takes beyond the first.

    There is one if a process's share of the batch has several micro-batches, because features are computed first. There is one if
    activations are recomputed in the backward pass.

    Raises:
        SimgapError: The batch cannot be divided among the processes.
    """
    return int(micro_batches(parameters, processes)[0] > 1) + int(parameters.grad_checkpointing)


def training_flop(image_flop: float, text_flop: float, extra_forward: int = 0) -> float:
    """Return the FLOP of one sample of a training step.

    Args:
        image_flop: FLOP of the image's forward pass.
        text_flop: FLOP of the text's forward pass.
        extra_forward: Forward passes beyond the first, see `extra_forward_passes`.
    """
    return (FORWARD_AND_BACKWARD + extra_forward) * (image_flop + text_flop)


def _similarity(timing: Numbers) -> list[Rate]:
    flop = 2.0 * timing.number("rows") * timing.number("queries") * timing.number("dim")
    engines = [name for name in timing.names("medians") if "engine" in name]
    gpu_engines = [name for name in engines if name.startswith("GPU")]
    if not engines:
        raise timing.fault("medians", "names no engine")
    fastest = min(timing.number("medians", name) for name in gpu_engines or engines)
    return [Rate(1.0, flop / fastest, "perf.similarity")]


def _embed(timing: Numbers) -> list[Rate]:
    rates = []
    for name in timing.names("models"):
        try:
            size = model_size("presets/models/toy.json" if name == "toy" else name)
        except SimgapError:
            raise timing.fault(f"models.{name}", "is no model of open_clip") from None
        per_second = timing.number("models", name, "images_per_second", "simgap")
        rates.append(Rate(size.image_flop, per_second, f"perf.embed, {name}"))
    return rates


def _train(timing: Numbers) -> list[Rate]:
    return [Rate(timing.number("flop_per_sample"), timing.number("medians", "simgap"), "perf.train")]


# By a key that only this program's JSON has.
FORMATS = {"models": ("embed", _embed), "neighbours": ("similarity", _similarity), "workers": ("train", _train)}


def measured(paths: Iterable[Path]) -> Rates:
    """Read what `python -m perf.embed`, `perf.similarity` or `perf.train` wrote with `--json`.

    Raises:
        SimgapError: A file is of another program, or a number is missing or out of range.
    """
    found: dict[str, tuple[Rate, ...]] = {}
    for path in paths:
        timing = Numbers(path, "--rates")
        known = [key for key in FORMATS if isinstance(timing.content, dict) and key in timing.content]
        if not known:
            raise SimgapError(
                f"--rates: {path}: not a file that perf.embed, perf.similarity or perf.train writes with --json"
            )
        work, read = FORMATS[known[0]]
        found[work] = (*found.get(work, ()), *read(timing))
    return Rates(found)


# The key of a stage's log that holds its rate, and the work that the rate is of.
LOGGED_RATES = {"images_per_second": "embed", "rows_per_second": "import", "samples_per_second": "train"}


@dataclass(frozen=True)
class StageLog:
    """The log of a stage.

    Attributes:
        name: Name of the instance.
        work: The work, see `Rates`.
        per_second: Things done in a second; 0 if an earlier run had done the work.
        seconds: How long the work took.
    """

    name: str
    work: str
    per_second: float
    seconds: float


def stage_logs(study: Path, stage: str) -> list[StageLog]:
    """Return the logs that belong to the metrics of `embed` or `train` in a study.

    Raises:
        SimgapError: A log is damaged.
    """
    found = []
    for metrics in sorted((study / "metrics" / stage).glob("*.json")):
        path = study / "logs" / f"{metrics.stem}-{sha256_of(metrics)[:16]}.json"
        if path.is_file():
            log = Numbers(path)
            key = next((key for key in LOGGED_RATES if isinstance(log.content, dict) and key in log.content), None)
            if key is None:
                raise log.fault(" or ".join(LOGGED_RATES), "is missing")
            found.append(StageLog(metrics.stem, LOGGED_RATES[key], log.number(key, least=0), log.number("seconds")))
    return found


def _flop(params: Params, log: StageLog) -> float:
    """Return the FLOP of one thing that a stage did; the components of a row if it imported embeddings."""
    if log.work != "train":
        embedder = embedder_size(params.embedder)
        return float(embedder.dim if log.work == "import" else embedder.image_flop)
    run = log.name.rpartition("-")[0]
    parameters = train_parameters(params, run) if run in params.runs else params.train
    size = model_size(parameters.model)
    return training_flop(size.image_flop, size.text_flop, extra_forward_passes(parameters, parameters.processes))


def logged(study: Path, instances: Collection[str] = ()) -> Rates:
    """Return the rates that a finished study logged: one for all stages whose models have equal FLOP.

    Args:
        study: The repository in which the study ran.
        instances: Names of the stage instances to use, for example `pool` and `full-0`; empty for all.

    Raises:
        SimgapError: The folder has no params file or no log of its metrics, or a log is damaged.
    """
    params = load_params(study / "params.yaml")
    alike: dict[tuple[str, float], list[StageLog]] = {}
    for log in (*stage_logs(study, "embed"), *stage_logs(study, "train")):
        if log.per_second and (not instances or log.name in instances):
            alike.setdefault((log.work, _flop(params, log)), []).append(log)
    if not alike:
        raise SimgapError(f"--study: {study} has no logs of its metrics; name a folder in which a study ran")
    found: dict[str, tuple[Rate, ...]] = {}
    for (work, flop), logs in alike.items():
        done, seconds = sum(log.per_second * log.seconds for log in logs), sum(log.seconds for log in logs)
        source = f"logs of {len(logs)} stage{'s' if len(logs) > 1 else ''}"
        found[work] = (*found.get(work, ()), Rate(flop, done / seconds, source))
    return Rates(found)
