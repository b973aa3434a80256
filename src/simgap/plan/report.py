"""A plan as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from simgap.core.errors import SimgapError
from simgap.plan.inputs import Inputs
from simgap.plan.needs import Need, Planner
from simgap.plan.rates import Rates

# Stages that a Ray cluster shares.
SHARED_BY_RAY = ("embed", "embed-benchmark", "deduplicate", "similarity")
MOST_DEVICES, MOST_PRICE = 10**6, 10**6


@dataclass(frozen=True)
class Machine:
    """What runs the study: devices, and what one of them costs an hour."""

    devices: int
    price: float | None

    def check(self) -> None:
        """Raise SimgapError where a value is out of range."""
        if not 1 <= self.devices <= MOST_DEVICES:
            raise SimgapError(f"--gpus: {self.devices} should be at least 1, {MOST_DEVICES:,} at most")
        if self.price is not None and not 0 <= self.price <= MOST_PRICE:
            raise SimgapError(f"--price: {self.price} should be 0 or more, {MOST_PRICE:,} at most")


@dataclass(frozen=True)
class StageTotal:
    """The instances of a stage together: sums, but for memory, of which it is the largest.

    Attributes:
        device_hours: hours on one device.
        hours: on all devices, the instances one after the other; None where a rate is not known.
        cost: of all devices for as long, None without a price.
    """

    stage: str
    instances: int
    rows: float
    disk_bytes: float
    scratch_bytes: float
    read_bytes: float
    memory_bytes: float
    device_hours: float | None
    hours: float | None
    cost: float | None
    bound: str


def total(stage: str, needs: Sequence[Need], machine: Machine) -> StageTotal:
    """Put instances together."""
    alone = [need.seconds for need in needs if need.seconds is not None]
    together = [seconds for need in needs if (seconds := need.seconds_on(machine.devices)) is not None]
    hours = sum(together) / 3600 if together else None
    slowest = max(needs, key=lambda need: need.seconds or 0.0)
    return StageTotal(
        stage,
        len(needs),
        sum(need.rows for need in needs),
        sum(need.disk_bytes for need in needs),
        max(need.scratch_bytes for need in needs),
        sum(need.read_bytes for need in needs),
        max(need.memory_bytes for need in needs),
        sum(alone) / 3600 if alone else None,
        hours,
        hours * machine.devices * machine.price if hours is not None and machine.price is not None else None,
        slowest.bound if alone else "no rate",
    )


def totals(needs: Sequence[Need], machine: Machine) -> list[StageTotal]:
    """Put the instances of each stage together, in the order of the graph, and all of them at the end."""
    by_stage: dict[str, list[Need]] = {}
    for need in needs:
        by_stage.setdefault(need.stage, []).append(need)
    return [
        *(total(stage, of_stage, machine) for stage, of_stage in by_stage.items()),
        total("all", needs, machine),
    ]


def with_unit(value: float, units: Sequence[tuple[float, str]]) -> str:
    """Write a value with three digits in the largest unit that it reaches; the smallest unit comes last."""
    if not value:
        return "0"
    factor, unit = next(((factor, unit) for factor, unit in units if value >= factor), units[-1])
    number = value / factor
    digits = max(0, 2 - max(0, len(f"{number:.0f}") - 1))
    return f"{number:.{digits}f}{unit}"


BYTES = ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1, " B"))
COUNT = ((1e9, "e9"), (1e6, "e6"), (1e3, "e3"), (1, ""))
HOURS = ((1, " h"), (1 / 60, " min"), (1 / 3600, " s"))


def as_table(planner: Planner, needs: Sequence[Need], machine: Machine, notes: Sequence[str] = ()) -> str:
    """Write a plan for a terminal: a line a stage, then what is assumed and where the figures come from.

    Args:
        notes: lines to say first below the table.
    """
    inputs, rates = planner.inputs, planner.rates
    device = "GPU" if rates.card else "machine"
    head = ["stage", "runs", "rows", "disk", "scratch", "reads", "memory", f"{device}-hours", "hours"]
    head += ["cost"] if machine.price is not None else []
    lines = [[*head, "bound by"]]
    for of_stage in totals(needs, machine):
        line = [
            of_stage.stage,
            str(of_stage.instances),
            with_unit(of_stage.rows, COUNT),
            *(
                with_unit(size, BYTES)
                for size in (
                    of_stage.disk_bytes, of_stage.scratch_bytes, of_stage.read_bytes, of_stage.memory_bytes
                )
            ),
            *("-" if hours is None else with_unit(hours, HOURS) for hours in (of_stage.device_hours, of_stage.hours)),
        ]  # fmt: skip
        if machine.price is not None:
            line.append("-" if of_stage.cost is None else f"{of_stage.cost:,.0f}")
        lines.append([*line, of_stage.bound if of_stage.stage != "all" else ""])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    where = [f"{name}: {value:,.0f} ({inputs.sources[name]})" for name, value in sizes(inputs).items()]
    unknown = sorted({need.stage for need in needs if need.seconds is None})
    plural = f"{device}s" if machine.devices > 1 else device
    alone = dict.fromkeys(need.stage for need in needs if need.devices == 1 and need.stage in SHARED_BY_RAY)
    too_large = planner.too_large()
    said = [
        *notes,
        f"hours: {machine.devices} {plural}, stages one after the other, what is divided divided evenly",
        *(
            [f"on one {device} alone, since parts.run_by is local (ray shares them): {', '.join(alone)}"]
            if alone and machine.devices > 1
            else []
        ),
        *(["cost: all of them are paid for all of the hours"] if machine.price is not None else []),
        "memory: of the host, at most; scratch: until the largest of its runs ends; -: no rate is known",
        *([f"not in the hours: {', '.join(unknown)}"] if unknown else []),
        *([f"more rows than full has, which prune will refuse: {', '.join(too_large)}"] if too_large else []),
        *where,
        *(f"rate of {work}: {source}" for work, sources in sorted(planner.sources.items()) for source in sources),
    ]
    return "\n".join([*table, "", *said])


def sizes(inputs: Inputs) -> dict[str, float]:
    """Give the figures of the data by the names that `inputs.sources` has."""
    return {
        "pool samples": inputs.samples,
        "pool shards": inputs.shards,
        "bytes of a pool sample": inputs.sample_bytes,
        "pool rows": inputs.rows,
        "rows of full": inputs.full,
        "reference samples": inputs.reference,
        "reference classes": inputs.classes,
        **{f"queries of {name}": count for name, count in inputs.queries.items()},
    }


def as_json(needs: Sequence[Need], inputs: Inputs, rates: Rates, machine: Machine) -> dict[str, Any]:
    """Give a plan with every instance, in bytes, seconds and hours."""
    return {
        "devices": machine.devices,
        "device": "card" if rates.card else "machine",
        "price": machine.price,
        "inputs": {name: {"value": value, "source": inputs.sources[name]} for name, value in sizes(inputs).items()},
        "rates": {work: [asdict(rate) for rate in known] for work, known in rates.by_work.items()},
        "stages": [asdict(of_stage) for of_stage in totals(needs, machine)],
        "instances": [{**asdict(need), "seconds_on_all": need.seconds_on(machine.devices)} for need in needs],
    }
