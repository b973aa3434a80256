from __future__ import annotations

import threading
from pathlib import Path

import pytest

from simgap.stage import scratch


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


def test_what_a_killed_stage_left_is_there_for_the_same_inputs_alone() -> None:
    def is_killed() -> None:
        with scratch("embed", {"data": 1}) as folder:
            (folder / "part").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        is_killed()
    with scratch("embed", {"data": 2}) as other:
        assert list(other.iterdir()) == []
    with scratch("embed", {"data": 1}) as again:
        assert (again / "part").is_file()
    assert not again.exists()


def test_of_two_that_run_at_once_the_second_waits_for_the_first() -> None:
    order: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with scratch("embed", {}):
            entered.set()
            leave.wait(20)
            order.append("first")

    def second() -> None:
        with scratch("embed", {}):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert entered.wait(20)
    threads[1].start()
    leave.set()
    for thread in threads:
        thread.join(20)
    assert order == ["first", "second"]
