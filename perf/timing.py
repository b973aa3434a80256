"""Time several methods in turn, and repeat the turns. Other load on the machine then affects all methods equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


def clocked(work: Callable[[], Any]) -> Callable[[], float]:
    """Return a function that calls `work` and returns the seconds that the call took."""

    def timed() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return timed


def interleaved(methods: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Run all methods in turn. Each method runs `repeats` times.

    Args:
        methods: One function for each method. The function runs the method and returns a measurement, either seconds or a rate.
        repeats: Number of runs of each method.

    Returns:
        The list of measurements of each method.
    """
    measured: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            measured[name].append(method())
    return measured
