from __future__ import annotations

from pathlib import Path

import pytest

from simgap.errors import SimgapError
from simgap.files import complete, read_json, sha256_of, unfinished, write_json


def test_a_failed_write_leaves_nothing_and_spares_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with complete(out) as partial:
        partial.mkdir()
        (partial / "a").write_text("old")

    def interrupted() -> None:
        with complete(out) as partial:
            partial.mkdir()
            (partial / "a").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert (out / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1 / 3, "a": [1, {"d": 2, "c": None}]})
    write_json(tmp_path / "b.json", {"a": [1, {"c": None, "d": 2}], "b": 1 / 3 + 1e-13})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metrics_are_finite(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        write_json(tmp_path / "a.json", {"a": value})
    assert not (tmp_path / "a.json").exists()


def test_reading_what_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SimgapError, match="not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(SimgapError, match="no such file"):
        read_json(tmp_path / "b.json")


def test_checksum_of_a_folder_knows_names_and_bytes(tmp_path: Path) -> None:
    for name, file, text in (("a", "x", "1"), ("b", "x", "1"), ("c", "y", "1"), ("d", "x", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    same, other, renamed, changed = (sha256_of(tmp_path / name) for name in "abcd")
    assert same == other
    assert len({same, renamed, changed}) == 3


def test_finished_parts_outlive_a_failure_and_an_empty_folder_does_not(tmp_path: Path) -> None:
    out, hidden = tmp_path / "out", tmp_path / ".out.making"
    with pytest.raises(KeyboardInterrupt), unfinished(out, "making"):
        raise KeyboardInterrupt
    assert not hidden.exists()

    def stopped() -> None:
        with unfinished(out, "making") as folder:
            (folder / "part").write_text("done")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with unfinished(out, "making") as folder:
        assert (folder / "part").read_text() == "done"
        with pytest.raises(SimgapError, match="out: another process is writing it"), unfinished(out, "making"):
            pass
        assert (folder / "part").exists()
    assert not hidden.exists()
