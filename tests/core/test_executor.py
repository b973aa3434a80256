"""Run parts in this process and on a Ray cluster, in any order, and compare the results."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clusters import ray_cluster
from conftest import unit_rows, write_pool

from simgap.clip.model import load
from simgap.core import executor as module
from simgap.core.errors import SimgapError
from simgap.core.executor import LOCAL, Executor, run_parts
from simgap.core.files import atomic_output
from simgap.deduplicate import within_cluster as within
from simgap.deduplicate.deduplicate import deduplicate
from simgap.embed.embed import embed
from simgap.params.deduplicate import DeduplicateParameters
from simgap.params.embed import EmbedParameters
from simgap.params.similarity import SimilarityParameters
from simgap.similarity.measure import measure
from simgap.similarity.search import scan as scanning


@dataclass
class Squares:
    """Parts that each write the square of their number. Part `bad` raises an error; part `deadly` ends its process."""

    scratch: Path
    sizes: Sequence[int] = (3, 1, 4, 1, 5)
    bad: int = -1
    deadly: int = -1

    def path(self, number: int) -> Path:
        return self.scratch / f"square_{number}"

    def write(self, number: int, out: Path, advance: Callable[[int], object]) -> None:
        if number == self.bad:
            raise SimgapError(f"part {number} is bad")
        if number == self.deadly:
            os._exit(1)
        with atomic_output(out) as partial:
            partial.write_text(str(number**2))
        advance(self.sizes[number])


def written(scratch: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in scratch.iterdir()}


SQUARES = {f"square_{number}": str(number**2) for number in range(5)}


def test_finished_parts_are_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "square_2").write_text("there")
    assert run_parts(LOCAL, Squares(tmp_path), "squares", "row") == [0, 1, 3, 4]
    assert written(tmp_path) == {**SQUARES, "square_2": "there"}
    assert run_parts(LOCAL, Squares(tmp_path), "squares", "row") == []


def test_the_results_of_a_scan_do_not_depend_on_the_order_of_its_parts(store, tmp_path, monkeypatch) -> None:
    sets = (store("pool", unit_rows(150, 8, 0), parts=5), store("reference", unit_rows(20, 8, 1)))
    queries = store("val", unit_rows(9, 8, 2), labels=[0] * 9)

    def in_order(order: list[int]) -> Callable[..., None]:
        def run(by: Executor, parts: Any, *about: str) -> None:
            for number in order:
                parts.write(number, parts.path(number), lambda size: None)

        return run

    results = []
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]):
        out = tmp_path / f"out-{order[0]}"
        monkeypatch.setattr(scanning, "run_parts", in_order(order))
        scratch = tmp_path / f"scratch-{order[0]}"
        measure(SimilarityParameters(7), *sets, queries, np.ones(9, bool), out, scratch)
        results.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    ("machines", "share"),
    [
        ([{"CPU": 8.0}, {"CPU": 4.0}, {}], {"num_cpus": 4.0}),
        ([{"CPU": 4.0}, {"CPU": 64.0, "GPU": 8.0}, {"CPU": 16.0, "GPU": 1.0}], {"num_gpus": 1, "num_cpus": 8.0}),
        ([{"GPU": 2.0}], {"num_gpus": 1, "num_cpus": 0.0}),
    ],
)
def test_a_task_gets_one_gpu_and_its_share_of_processors_or_a_whole_machine(machines, share) -> None:
    assert module._share(machines) == share


def test_a_cluster_without_processors() -> None:
    with pytest.raises(SimgapError, match="no machine"):
        module._share([{}, {"CPU": 0.0}])


def test_a_machine_that_does_not_see_the_study_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "marker").touch()
    module._check_seen(tmp_path, tmp_path / "marker")
    for folder, marker in ((tmp_path / "nowhere", tmp_path / "marker"), (tmp_path, tmp_path / "nothing")):
        with pytest.raises(SimgapError, match=f"the machine {socket.gethostname()}"):
            module._check_seen(folder, marker)


def test_if_ray_is_missing_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SimgapError, match=r"resources\.executor is 'ray', .*simgap\[ray\]"):
        run_parts(Executor("ray", "auto"), Squares(tmp_path), "squares", "row")
    assert written(tmp_path) == {}


@pytest.mark.parametrize("listens", [False, True])
def test_a_cluster_that_cannot_be_reached_is_named(listens: bool, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listens:
            other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(SimgapError, match=f"resources.ray_address is '{address}'; it cannot be reached"):
            run_parts(Executor("ray", address), Squares(tmp_path), "squares", "row")
    assert time.monotonic() - begun < 30


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as made:
        yield made


@pytest.fixture
def by_ray(cluster: Any) -> Executor:
    return Executor("ray", cluster.address)


@pytest.mark.slow
def test_the_cluster_runs_every_missing_part(by_ray: Executor, tmp_path: Path) -> None:
    (tmp_path / "square_2").write_text("there")
    assert run_parts(by_ray, Squares(tmp_path), "squares", "row") == [0, 1, 3, 4]
    assert written(tmp_path) == {**SQUARES, "square_2": "there"}


@pytest.mark.slow
def test_the_error_of_a_part_is_raised_unchanged(by_ray: Executor, tmp_path: Path) -> None:
    with pytest.raises(SimgapError) as raised:
        run_parts(by_ray, Squares(tmp_path, bad=3), "squares", "row")
    assert type(raised.value) is SimgapError
    assert str(raised.value) == "part 3 is bad"
    # The cluster stops at the error, so hidden files of parts that were being written may remain.
    finished = {name for name in written(tmp_path) if not name.startswith(".")}
    assert finished <= set(SQUARES) - {"square_3"}


@pytest.mark.slow
def test_a_part_whose_process_always_dies_is_named(by_ray: Executor, tmp_path: Path) -> None:
    with pytest.raises(SimgapError) as raised:
        run_parts(by_ray, Squares(tmp_path, sizes=[1], deadly=0), "squares", "row")
    assert str(raised.value).startswith("Ray: part 0 failed 4 times")
    assert "\n" not in str(raised.value)


EMBED = EmbedParameters(batch_size=8, precision="fp32", shards_per_part=1)
SIMILARITY = SimilarityParameters(neighbours=3)
DEDUPLICATE = DeduplicateParameters(eps=0.2, clusters=4, iterations=5, sample=1000, seed=0)


def embedded(folder: Path, by: Executor, model: Path, store: Any) -> list[bytes]:
    shards = sorted(write_pool(folder / "pool", 5, 11).glob("*.tar"))
    (folder / "scratch").mkdir()
    embed(
        EMBED, partial(load, model), "e", tuple(shards), folder / "out", folder / "scratch",
        classes=None, captioned=True, decoders=1, drop_limit=0.0, executor=by,
    )  # fmt: skip
    return [path.read_bytes() for path in sorted((folder / "out").rglob("*")) if path.is_file()]


def measured(folder: Path, by: Executor, model: Path, store: Any) -> list[bytes]:
    sets = [store(f"{folder.name}/{name}", unit_rows(rows, 8, rows), parts, labels=[0] * rows) for name, rows, parts in (
        ("pool", 150, 5), ("reference", 20, 1), ("val", 9, 1)
    )]  # fmt: skip
    used = np.arange(9) % 2 == 0
    metrics = measure(SIMILARITY, *sets, used, folder / "out", folder / "scratch", "cpu", by)
    return [repr(metrics).encode(), *(path.read_bytes() for path in sorted((folder / "out").iterdir()))]


def deduplicated(folder: Path, by: Executor, model: Path, store: Any) -> list[bytes]:
    pool = store(f"{folder.name}/pool", unit_rows(200, 8, 4), parts=5)
    return [array.tobytes() for array in deduplicate(DEDUPLICATE, pool, "cpu", 16, folder / "scratch", by)]


@dataclass
class Recorded:
    """Wrap parts: record the start of each part in `folder`, and let part 2 wait for the file `go-on`."""

    inner: Any
    folder: Path

    @property
    def sizes(self) -> Sequence[int]:
        return self.inner.sizes

    def path(self, number: int) -> Path:
        return self.inner.path(number)

    def write(self, number: int, out: Path, advance: Callable[[int], object]) -> None:
        import ray

        node = ray.get_runtime_context().get_node_id()
        (self.folder / f"begun-{self.path(number).name}-{node}-{os.getpid()}").touch()
        while number == 2 and not (self.folder / "go-on").exists():
            os.sched_yield()
        self.inner.write(number, out, advance)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("stage", [embedded, measured, deduplicated])
def test_a_lost_machine_changes_no_byte_and_no_finished_part_runs_twice(
    stage: Callable[..., list[bytes]],
    cluster: Any,
    by_ray: Executor,
    model_folder: Path,
    store: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(within, "SECTION_BLOCKS", 4)
    for name in ("local", "ray", "notes"):
        (tmp_path / name).mkdir()
    expected = stage(tmp_path / "local", LOCAL, model_folder, store)

    notes, killed = tmp_path / "notes", []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while not (begun := [path.name for path in notes.glob("begun-part_0002-*")]):
            assert time.monotonic() < deadline
            os.sched_yield()
        node_id, process = begun[0].split("-")[2:]
        node = next(node for node in cluster.worker_nodes if node.node_id == node_id)
        cluster.remove_node(node, allow_graceful=False)
        # All processes of a real machine die with it. Here the worker would live on, so kill it too.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
        killed.append(node_id)
        (notes / "go-on").touch()

    def run(by: Executor, parts: Any, description: str, unit: str) -> list[int]:
        return run_parts(by, Recorded(parts, notes), description, unit)

    for user in ("simgap.embed.embed", "simgap.similarity.search.scan", "simgap.deduplicate.within_cluster"):
        monkeypatch.setattr(f"{user}.run_parts", run)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = stage(tmp_path / "ray", by_ray, model_folder, store)
    finally:
        killer.join(120)
        if killed:
            cluster.add_node(num_cpus=2, object_store_memory=80_000_000)
    assert found == expected
    assert len(killed) == 1
    begun = Counter(path.name.split("-")[1] for path in notes.glob("begun-*"))
    assert begun.pop("part_0002") == 2
    assert len(begun) >= 4
    assert set(begun.values()) == {1}
