"""Determine how fast a machine works.

The programs in `perf` measure rates, and a finished study logs rates. The rates of a card can also be computed from its
peak FLOP/s.
"""

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
from simgap.plan.numbers import SMALLEST, Numbers, check_range
from simgap.train.overrides import train_parameters
from simgap.train.train import micro_batches

# A plan assumes the next three rates if they were not measured on the machine of the plan. They come from the machine
# of docs/results.md. The rate of decoding counts images of 256 pixels per second and core. It includes preprocessing.
DECODED_BY_CORE = 250.0
# The rate of importing counts dimensions of embeddings per second.
IMPORTED = 45e6
# The rate of reading counts bytes per second.
READ = 1e9
# A training step takes three times the FLOP of a forward pass, because the backward pass takes twice as many.
FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class Rate:
    """The speed of a machine for one kind of work.

    A unit of work is, for example, one sample, one row or one byte.

    Attributes:
        flop: FLOP of one unit of work. The value is the number of dimensions if the work is to import embeddings. The
            value is 1 if the units are FLOP, images or bytes.
        per_second: Number of units per second.
        source: Text that says where the rate comes from.
    """

    flop: float
    per_second: float
    source: str


@dataclass(frozen=True)
class Rates:
    """The known rates of a machine.

    Attributes:
        by_work: Known rates for each kind of work. The units are samples for `embed` and `train`, FLOP for
            `similarity`, rows for `import`, images for `decode` and bytes for `read`.
        card: Whether embedding, training and similarity run on a card. Then processors decode images while the card
            computes.
    """

    by_work: Mapping[str, tuple[Rate, ...]] = field(default_factory=dict)
    card: bool = False

    def find(self, work: str, flop: float = 1.0) -> Rate | None:
        """Return the rate of a kind of work.

        The function takes the known rate with the most similar FLOP per unit, and scales it to `flop`.

        Args:
            work: Kind of work, see `by_work`.
            flop: FLOP of one unit of work.

        Returns:
            The scaled rate. None if no rate of this work is known.
        """
        known = self.by_work.get(work, ())
        if not known:
            return None
        nearest = min(known, key=lambda rate: abs(math.log(rate.flop / flop)))
        scale = nearest.flop / flop
        # The source does not mention the scale of a rate in FLOP per second, because such a rate is valid for units of
        # any size.
        source = nearest.source if nearest.flop in (1.0, flop) else f"{nearest.source}, scaled by {scale:.3g}"
        return Rate(flop, nearest.per_second * scale, source)

    def joined(self, other: Rates) -> Rates:
        """Return the rates of `self` and `other`. If both have rates for a kind of work, use the rates of `other`."""
        return Rates({**self.by_work, **other.by_work}, self.card or other.card)


def assumed(cores: int) -> Rates:
    """Return the rates of decoding, importing and reading that a plan assumes.

    Args:
        cores: Number of processor cores of the machine. The rate of decoding grows with this number.
    """
    decode = Rate(1.0, DECODED_BY_CORE * cores, f"assumed, {DECODED_BY_CORE:g} a core on {cores} cores")
    return Rates(
        {"decode": (decode,), "import": (Rate(1.0, IMPORTED, "assumed"),), "read": (Rate(1.0, READ, "assumed"),)}
    )


def card_rates(tflops: float, utilisation: float) -> Rates:
    """Compute the rates of a card from its peak FLOP per second.

    Args:
        tflops: Peak speed of the card in 1e12 FLOP per second.
        utilisation: Share of the peak speed that programs reach, in (0, 1].

    Returns:
        The rates of embedding, training and similarity.

    Raises:
        SimgapError: A value is out of range.
    """
    check_range("--card-tflops", tflops, SMALLEST)
    check_range("--utilisation", utilisation, SMALLEST, 1)
    rate = Rate(1.0, tflops * 1e12 * utilisation, f"{utilisation:.0%} of a card's {tflops:g} TFLOP/s")
    return Rates(dict.fromkeys(("embed", "train", "similarity"), (rate,)), card=True)


def extra_forward_passes(parameters: TrainParameters, processes: int) -> int:
    """Count the forward passes of a training step, without the first forward pass.

    Some training settings need extra forward passes. If a process splits its share of the batch into micro-batches, it
    computes all features in an extra pass. If the backward pass recomputes activations, this is another extra pass.

    Args:
        parameters: Training parameters of the model.
        processes: Number of processes that share a batch.

    Returns:
        The number of extra forward passes, 0 to 2.

    Raises:
        SimgapError: The batch cannot be divided among the processes.
    """
    return int(micro_batches(parameters, processes)[0] > 1) + int(parameters.grad_checkpointing)


def training_flop(image_flop: float, text_flop: float, extra_forward: int = 0) -> float:
    """Return the FLOP of a training step for one sample.

    Args:
        image_flop: FLOP of the forward pass of the image.
        text_flop: FLOP of the forward pass of the text.
        extra_forward: Number of extra forward passes, see `extra_forward_passes`.
    """
    return (FORWARD_AND_BACKWARD + extra_forward) * (image_flop + text_flop)


def _similarity(timing: Numbers) -> list[Rate]:
    flop = 2.0 * timing.number("rows") * timing.number("queries") * timing.number("dim")
    engines = [name for name in timing.names("medians") if "engine" in name]
    gpu_engines = [name for name in engines if name.startswith("GPU")]
    if not engines:
        raise timing.fault("medians", "names no engine; measure again with `python -m perf.similarity`")
    fastest = min(timing.number("medians", name) for name in gpu_engines or engines)
    return [Rate(1.0, flop / fastest, "perf.similarity")]


def _embed(timing: Numbers) -> list[Rate]:
    rates = []
    for name in timing.names("models"):
        try:
            size = model_size("presets/models/toy.json" if name == "toy" else name)
        except SimgapError:
            raise timing.fault(
                f"models.{name}", "is no model of open_clip; measure again with the installed open_clip"
            ) from None
        per_second = timing.number("models", name, "images_per_second", "simgap")
        rates.append(Rate(size.image_flop, per_second, f"perf.embed, {name}"))
    return rates


def _train(timing: Numbers) -> list[Rate]:
    return [Rate(timing.number("flop_per_sample"), timing.number("medians", "simgap"), "perf.train")]


# The key tells which program wrote a file, because each program writes a key that no other program writes.
FORMATS = {"models": ("embed", _embed), "neighbours": ("similarity", _similarity), "workers": ("train", _train)}


def measured(paths: Iterable[Path]) -> Rates:
    """Read rates that the programs `perf.embed`, `perf.similarity` and `perf.train` measured.

    Args:
        paths: JSON files that the programs wrote with the option `--json`.

    Returns:
        The rates of all files.

    Raises:
        SimgapError: A file comes from another program, or a number in a file is missing or out of range.
    """
    found: dict[str, tuple[Rate, ...]] = {}
    for path in paths:
        timing = Numbers(path, "--rates")
        known = [key for key in FORMATS if isinstance(timing.content, dict) and key in timing.content]
        if not known:
            raise SimgapError(
                f"--rates: {path}: unknown format; name a file that perf.embed, perf.similarity or perf.train wrote"
            )
        work, read = FORMATS[known[0]]
        found[work] = (*found.get(work, ()), *read(timing))
    return Rates(found)


# A log does not name the kind of work. The name of its rate tells which work the stage did.
LOGGED_RATES = {"images_per_second": "embed", "rows_per_second": "import", "samples_per_second": "train"}


@dataclass(frozen=True)
class StageLog:
    """The log of a stage instance.

    Attributes:
        name: Name of the instance.
        work: Kind of work, see `Rates`.
        per_second: Number of units of work per second. The value is 0 if earlier runs of the stage had already done all
            work.
        seconds: Duration of the work in seconds.
    """

    name: str
    work: str
    per_second: float
    seconds: float


def stage_logs(study: Path, stage: str) -> list[StageLog]:
    """Return the logs of the instances of a stage in a study.

    Instances without a log are skipped.

    Args:
        study: The repository in which the study ran.
        stage: `embed` or `train`.

    Returns:
        The logs, sorted by the name of the instance.

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
                raise log.fault(" or ".join(LOGGED_RATES), "is missing; delete this log, or plan with --rates instead")
            found.append(StageLog(metrics.stem, LOGGED_RATES[key], log.number(key, least=0), log.number("seconds")))
    return found


def _flop(params: Params, log: StageLog) -> float:
    """Return the FLOP of one unit of the work that a stage logged.

    If the stage imported embeddings, return the number of dimensions of an embedding instead.
    """
    if log.work != "train":
        embedder = embedder_size(params.embedder)
        return float(embedder.dim if log.work == "import" else embedder.image_flop)
    run = log.name.rpartition("-")[0]
    parameters = train_parameters(params, run) if run in params.runs else params.train
    size = model_size(parameters.model)
    return training_flop(size.image_flop, size.text_flop, extra_forward_passes(parameters, parameters.processes))


def logged(study: Path, instances: Collection[str] = ()) -> Rates:
    """Return the rates that a finished study logged.

    The function computes one rate from all stages with the same kind of work and equal FLOP per unit. This rate is the
    total number of units divided by the total time.

    Args:
        study: The repository in which the study ran.
        instances: Names of the stage instances to use, for example `pool` and `full-0`. If there are no names, all
            instances are used.

    Returns:
        The rates of embedding, importing and training that the logs contain.

    Raises:
        SimgapError: The folder has no params file or no logs, or a log is damaged.
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
