"""Format a plan as tables for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from simgap.plan.needs import Need, Planner

BYTES = ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1, " B"))
COUNT = ((1e9, "e9"), (1e6, "e6"), (1e3, "e3"), (1, ""))
HOURS = ((1, " h"), (1 / 60, " min"), (1 / 3600, " s"))


@dataclass(frozen=True)
class Total:
    """The total need of several stage instances.

    Instances run one after the other. So `scratch_bytes` and `memory_bytes` are the largest values of the instances,
    and the other numbers are sums.

    Attributes:
        stage: Name of the stage, or `all`.
        instances: Number of instances.
        rows: Number of samples or rows that the instances process.
        disk_bytes: Size of all outputs.
        scratch_bytes: Largest size of temporary files.
        read_bytes: Number of bytes that the instances read.
        memory_bytes: Largest peak memory of the host.
        device_hours: Hours on one device. None if no rate is known.
        hours: Hours on all devices, if the instances run one after the other. None if no rate is known.
        cost: Cost of all devices for `hours`. None if no price is known.
        bound: Kind of work that takes the longest time in the slowest instance.
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


def total(stage: str, needs: Sequence[Need], devices: int, price: float | None) -> Total:
    """Sum the needs of several stage instances.

    Args:
        stage: Name of the stage, or `all`.
        needs: Needs of the instances.
        devices: Number of devices.
        price: Price of one device for one hour. If it is None, the total has no cost.

    Returns:
        The total. An instance with an unknown rate adds 0 hours.
    """
    alone = [need.seconds for need in needs if need.seconds is not None]
    together = [seconds for need in needs if (seconds := need.seconds_on(devices)) is not None]
    hours = sum(together) / 3600 if together else None
    return Total(
        stage=stage,
        instances=len(needs),
        rows=sum(need.rows for need in needs),
        disk_bytes=sum(need.disk_bytes for need in needs),
        scratch_bytes=max(need.scratch_bytes for need in needs),
        read_bytes=sum(need.read_bytes for need in needs),
        memory_bytes=max(need.memory_bytes for need in needs),
        device_hours=sum(alone) / 3600 if alone else None,
        hours=hours,
        cost=None if hours is None or price is None else hours * devices * price,
        bound=max(needs, key=lambda need: need.seconds or 0.0).bound,
    )


def totals(needs: Sequence[Need], devices: int, price: float | None) -> list[Total]:
    """Sum the needs of each stage and of all stages.

    Args:
        needs: Needs of all instances.
        devices: Number of devices.
        price: Price of one device for one hour. If it is None, the totals have no cost.

    Returns:
        One total for each stage in the order of the graph, and the total of all instances at the end.
    """
    stages = dict.fromkeys(need.stage for need in needs)
    by_stage = [total(stage, [n for n in needs if n.stage == stage], devices, price) for stage in stages]
    return [*by_stage, total("all", needs, devices, price)]


def with_unit(value: float | None, units: Sequence[tuple[float, str]]) -> str:
    """Format a value with three digits and a unit.

    The function uses the largest unit that does not exceed the value. If all units exceed the value, it uses the last
    one.

    Args:
        value: The value. None stands for an unknown value, which is formatted as "-".
        units: Pair (factor, name) of each unit. The largest unit comes first.

    Returns:
        The text, for example "1.25 GB".
    """
    if not value:
        return "-" if value is None else "0"
    factor, unit = next(((factor, unit) for factor, unit in units if value >= factor), units[-1])
    number = value / factor
    digits = max(0, 2 - max(0, len(f"{number:.0f}") - 1))
    return f"{number:.{digits}f}{unit}"


def as_text(planner: Planner, needs: Sequence[Need], price: float | None) -> str:
    """Format a plan for a terminal.

    Args:
        planner: The planner that made the plan.
        needs: Needs of all instances.
        price: Price of one device for one hour, or None.

    Returns:
        A table of the stages, a table of the sizes and a table of the rates, with notes below the tables.
    """
    stages = [
        {
            "stage": of.stage,
            "runs": of.instances,
            "rows": with_unit(of.rows, COUNT),
            "disk": with_unit(of.disk_bytes, BYTES),
            "scratch": with_unit(of.scratch_bytes, BYTES),
            "reads": with_unit(of.read_bytes, BYTES),
            "memory": with_unit(of.memory_bytes, BYTES),
            "device-hours": with_unit(of.device_hours, HOURS),
            f"hours on {planner.devices}": with_unit(of.hours, HOURS),
            "cost": "-" if of.cost is None else f"{of.cost:,.0f}",
            "bound by": of.bound,
        }
        for of in totals(needs, planner.devices, price)
    ]
    sizes = [{"size": name, "value": f"{value:,.10g}", "source": source} for name, value, source in planner.sizes.table]
    rates = [{"rate": work, "source": source} for work, source in sorted(sources(planner, needs))]
    tables = [tabulate(rows, headers="keys", disable_numparse=True) for rows in (stages, sizes, rates)]
    return "\n\n".join([*tables, "\n".join(_notes(planner, needs))])


def sources(planner: Planner, needs: Sequence[Need]) -> set[tuple[str, str]]:
    """Return a pair (kind of work, source of the rate) for each rate that a plan uses."""
    read = [(work, rate.source) for work in ("read", "decode") if (rate := planner.rates.find(work))]
    return {*read, *(need.rate for need in needs)}


def _notes(planner: Planner, needs: Sequence[Need]) -> list[str]:
    devices, processes = planner.devices, planner.params.train.processes
    notes = [
        "The plan covers embedding, similarity, training and evaluation. Other stages take under 1% of the hours.",
        "Stages run one after the other. The cost covers all devices for all hours. Memory is host memory. -: no rate.",
    ]
    alone = dict.fromkeys(need.stage for need in needs if not need.shared)
    if devices > 1:
        notes.append(f"On one device, while the other devices wait, run: {', '.join(alone)}.")
    if planner.rates.card and devices != processes:
        notes.append(
            f"Training runs {devices} processes, one on each card. Set train.processes, which is {processes}, to {devices}."
        )
    if large := planner.too_large():
        notes.append(
            f"These splits should keep more rows than full has. Lower their `keep`, or pruning fails: {', '.join(large)}"
        )
    return notes


def as_json(planner: Planner, needs: Sequence[Need], price: float | None) -> dict[str, Any]:
    """Format a plan as a JSON object.

    Args:
        planner: The planner that made the plan.
        needs: Needs of all instances.
        price: Price of one device for one hour, or None.

    Returns:
        An object with the sizes, the rates, the totals and the need of every instance. The units are bytes, seconds and
        hours.
    """
    devices = planner.devices
    return {
        "devices": devices,
        "price": price,
        "sizes": {name: {"value": value, "source": source} for name, value, source in planner.sizes.table},
        "rates": {work: [asdict(rate) for rate in known] for work, known in planner.rates.by_work.items()},
        "stages": [asdict(of) for of in totals(needs, devices, price)],
        "instances": [{**asdict(need), "seconds_on_all": need.seconds_on(devices)} for need in needs],
    }
