"""What a measurement was made on, and how it is written down."""

from __future__ import annotations

import json
import os
import platform
import threading
from pathlib import Path
from typing import Any

import numpy as np


def machine() -> dict[str, Any]:
    """Name the processor, the cores that this process may use, the versions that decide speed, and the card."""
    # Not where only memory is measured.
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


class AnonymousMemory:
    """The largest anonymous resident memory while a block runs, in bytes, sampled; mapped files do not count."""

    def __enter__(self) -> AnonymousMemory:
        self.begin = self.peak = self._now()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    @property
    def grown(self) -> int:
        """The largest anonymous memory beyond that at the begin, in bytes."""
        return self.peak - self.begin

    @staticmethod
    def _now() -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, self._now())


def report(rows: list[tuple[str, ...]], content: dict[str, Any], out: Path | None) -> None:
    """Print rows as a table, the first as its head, and write `content` with the machine to a JSON file."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if out is not None:
        out.write_text(json.dumps({"machine": machine(), **content}, indent=1, sort_keys=True) + "\n")
