"""Describe the machine, measure memory, and report results."""

from __future__ import annotations

import json
import os
import platform
import threading
from pathlib import Path
from typing import Any

import numpy as np


def machine() -> dict[str, Any]:
    """Return the CPU, the number of cores that this process may use, the versions of NumPy and Python, and the GPU."""
    # This import is not at the top of the module. In a process that measures memory, the memory of torch would count.
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
    """Measure the peak of the anonymous resident memory while a `with` block runs. Mapped files do not count.

    Attributes:
        begin: Memory at the start of the block, in bytes.
        peak: Largest sampled memory, in bytes.
    """

    def __enter__(self) -> AnonymousMemory:
        """Start to sample the memory."""
        self.begin = self.peak = self._now()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sampling."""
        self._done.set()
        self._watcher.join()

    @property
    def grown(self) -> int:
        """Return the peak memory minus the memory at the start, in bytes."""
        return self.peak - self.begin

    @staticmethod
    def _now() -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, self._now())


def report(rows: list[tuple[str, ...]], content: dict[str, Any], out: Path | None) -> None:
    """Print a table, and write the results to a JSON file.

    Args:
        rows: Rows of the table. The first row is the header.
        content: Results to write. The file also contains the description of the machine.
        out: JSON file to write. None means that no file is written.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if out is not None:
        out.write_text(json.dumps({"machine": machine(), **content}, indent=1, sort_keys=True) + "\n")
