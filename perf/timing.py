"""Time several methods in turn and repeat this, so that other load on the machine affects all of them equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


def clocked(work: Callable[[], Any]) -> Callable[[], float]:
    """Return a function that does the work and returns the seconds it took."""

    def timed() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return timed


def interleaved(methods: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Run all methods in turn, and repeat this.

    Args:
        methods: Functions that run a method and return its measurement, seconds or a rate.
        repeats: Number of runs of each method.

    Returns:
        The measurements of each method.
    """
    measured: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            measured[name].append(method())
    return measured
