from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from simgap.stage.command import reports_errors
from simgap.stage.scratch import scratch


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


def test_a_stage_finds_the_parts_of_a_killed_stage_only_if_its_inputs_are_the_same() -> None:
    def is_killed() -> None:
        with scratch("embed", {"data": 1}, __file__) as folder:
            (folder / "part").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        is_killed()
    with scratch("embed", {"data": 2}, __file__) as other:
        assert list(other.iterdir()) == []
    with scratch("embed", {"data": 1}, __file__) as again:
        assert (again / "part").is_file()
    assert not again.exists()


def test_a_second_process_waits_for_the_first() -> None:
    order: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with scratch("embed", {}, __file__):
            entered.set()
            leave.wait(20)
            order.append("first")

    def second() -> None:
        with scratch("embed", {}, __file__):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert entered.wait(20)
    threads[1].start()
    leave.set()
    for thread in threads:
        thread.join(20)
    assert order == ["first", "second"]


@pytest.mark.parametrize("name", ["data/splits/x", None])
def test_a_full_disk_ends_a_command_with_one_line(name: str | None) -> None:
    @click.command()
    @reports_errors
    def command() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    result = CliRunner().invoke(command)
    assert (result.exit_code, result.output) == (1, f"error: {name or 'a file'}: No space left on device\n")


def test_a_bug_keeps_its_traceback() -> None:
    @click.command()
    @reports_errors
    def command() -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    assert isinstance(CliRunner().invoke(command).exception, OSError)
