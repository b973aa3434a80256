"""Ways to do the same, timed one after the other, over and over: what else the machine does falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


def clocked(work: Callable[[], Any]) -> Callable[[], float]:
    """Make of some work a way that does it and gives the seconds it took."""

    def timed() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return timed


def interleaved(ways: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Give what every way measures of itself, seconds or a rate, one repeat of each after the other."""
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            measured[name].append(way())
    return measured
