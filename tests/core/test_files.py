from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from simgap.core.errors import SimgapError
from simgap.core.files import atomic_output, link_or_copy, read_json, resumable_output, sha256_of, write_json


def test_a_failed_write_keeps_the_old_output_and_leaves_no_partial_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_output(out) as partial:
        partial.mkdir()
        (partial / "a").write_text("old")

    def interrupted() -> None:
        with atomic_output(out) as partial:
            partial.mkdir()
            (partial / "a").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert (out / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_is_replaced_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file exists until the new one takes its place."""
    out = tmp_path / "out.json"
    out.write_text("old")
    seen: list[str] = []
    replace = Path.replace

    def recorded(path: Path, target: Path) -> Path:
        seen.append(out.read_text())
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", recorded)
    with atomic_output(out) as partial:
        partial.write_text("new")
    assert seen == ["old"]
    assert out.read_text() == "new"


@pytest.mark.parametrize(("old", "new"), [("file", "folder"), ("folder", "file"), ("link", "file"), ("link", "folder")])
def test_a_file_replaces_a_folder_and_a_folder_replaces_a_file(tmp_path: Path, old: str, new: str) -> None:
    out = tmp_path / "out"
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a").write_text("kept")
    if old == "file":
        out.write_text("old")
    elif old == "folder":
        (out / "old").mkdir(parents=True)
    else:
        out.symlink_to(tmp_path / "target")
    with atomic_output(out) as partial:
        if new == "file":
            partial.write_text("new")
        else:
            partial.mkdir()
    assert not out.is_symlink()
    assert out.is_file() == (new == "file")
    assert (tmp_path / "target" / "a").read_text() == "kept"


def test_a_linked_file_takes_no_space(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")


@pytest.mark.parametrize(
    "code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK]
)
def test_a_file_is_copied_if_hard_links_are_impossible(tmp_path: Path, monkeypatch, code: int) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refused)
    (tmp_path / "a").write_bytes(b"content")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    assert not (tmp_path / "b").samefile(tmp_path / "a")


def test_other_failures_to_link_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "none", tmp_path / "b")
    (tmp_path / "a").write_bytes(b"content")
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="space"):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1 / 3, "a": [1, {"d": 2, "c": None}]})
    write_json(tmp_path / "b.json", {"a": [1, {"c": None, "d": 2}], "b": 1 / 3 + 1e-13})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metrics_are_finite(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        write_json(tmp_path / "a.json", {"a": value})
    assert not (tmp_path / "a.json").exists()


def test_reading_files_that_are_not_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SimgapError, match="not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(SimgapError, match="no such file"):
        read_json(tmp_path / "b.json")
    with pytest.raises(SimgapError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path)


def test_the_checksum_of_a_folder_depends_on_names_and_bytes(tmp_path: Path) -> None:
    for name, file, text in (("a", "x", "1"), ("b", "x", "1"), ("c", "y", "1"), ("d", "x", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    same, other, renamed, changed = (sha256_of(tmp_path / name) for name in "abcd")
    assert same == other
    assert len({same, renamed, changed}) == 3


def test_finished_parts_survive_a_failure_and_an_empty_folder_does_not(tmp_path: Path) -> None:
    out, hidden = tmp_path / "out", tmp_path / ".out.making"
    with pytest.raises(KeyboardInterrupt), resumable_output(out, "making"):
        raise KeyboardInterrupt
    assert not hidden.exists()

    def stopped() -> None:
        with resumable_output(out, "making") as folder:
            (folder / "part").write_text("done")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with resumable_output(out, "making") as folder:
        assert (folder / "part").read_text() == "done"
        with pytest.raises(SimgapError, match="out: another process is writing it"), resumable_output(out, "making"):
            pass
        assert (folder / "part").exists()
    assert not hidden.exists()
