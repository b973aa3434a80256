"""A Ray cluster whose machines are all this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

TESTS = Path(__file__).parent


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Run three machines: a head, where this process is, and two that work, in the environment that this process has now."""
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    # Machines may come and go; the driver's stays. Their processes import what a test defines.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (TESTS, TESTS / "core", REPOSITORY))))
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                made.add_node(num_cpus=2, object_store_memory=80_000_000)
            yield made
        finally:
            made.shutdown()
