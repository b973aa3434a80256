from __future__ import annotations

from pathlib import Path

import pytest

from simgap.core.errors import SimgapError
from simgap.core.files import sha256_of
from simgap.data.copy import copy_data


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("pool", "benchmarks"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "0.tar").write_text(name)
    return tmp_path / "source"


def test_named_folders_are_copied(source: Path, tmp_path: Path) -> None:
    whole = sha256_of(source)
    copy_data("own", tmp_path, "source", ["pool", "benchmarks"], whole, tmp_path / "out")
    assert sha256_of(tmp_path / "out") == whole
    with pytest.raises(SimgapError, match=rf"copy\.own\.sha256 is 'x'.* {whole}"):
        copy_data("own", tmp_path, str(source), ["pool", "benchmarks"], "x", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("where", "folders", "message"),
    [
        ("nowhere", ["pool"], r"copy\.own\.source is 'nowhere'"),
        ("source", [], r"copy\.own\.folders is empty"),
        ("source", ["pool", "other"], r"copy\.own\.folders.*'other'"),
        ("source", ["../source"], r"copy\.own\.folders.*'\.\./source'"),
    ],
)
def test_what_cannot_be_copied_is_named(
    source: Path, tmp_path: Path, where: str, folders: list[str], message: str
) -> None:
    with pytest.raises(SimgapError, match=message):
        copy_data("own", tmp_path, where, folders, "x", tmp_path / "out")
    assert not (tmp_path / "out").exists()
