"""Run a Ray cluster whose machines are all this machine."""

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
    """Run a cluster of a head and two workers, in the environment of this process. The head runs no tasks."""
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    # The head has no processors, so that tests can remove every machine that runs tasks.
    # The processes of the workers must be able to import the test modules.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (TESTS, TESTS / "core", REPOSITORY))))
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=2, object_store_memory=80_000_000)
            yield cluster
        finally:
            cluster.shutdown()
