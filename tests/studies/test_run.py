from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from simgap.core.errors import SimgapError
from simgap.studies.run import run_beside, run_study

# Takes the place of DVC: copies the workspace's params, then waits until the workspace has its own params again.
COPIES_AND_WAITS = """
import pathlib, shutil, time
copy = pathlib.Path(".dvc/tmp/exps/standalone/tmp1")
copy.mkdir(parents=True)
shutil.copy("params.yaml", copy / "copied")
(copy / "copied").rename(copy / "params.yaml")
end = time.monotonic() + 20
while pathlib.Path("params.yaml").read_text() != "own":
    assert time.monotonic() < end, "the workspace did not get its params back"
"""


@pytest.mark.parametrize(("program", "code"), [(COPIES_AND_WAITS, 0), ("raise SystemExit(3)", 3)])
def test_the_preset_leaves_the_workspace_once_it_is_copied(tmp_path: Path, monkeypatch, program, code) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("own")
    (tmp_path / "preset.yaml").write_text("preset")
    assert run_beside(tmp_path / "preset.yaml", [sys.executable, "-c", program]) == code
    assert (tmp_path / "params.yaml").read_text() == "own"
    if code == 0:
        assert (tmp_path / ".dvc/tmp/exps/standalone/tmp1/params.yaml").read_text() == "preset"


def test_a_study_that_cannot_begin(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SimgapError, match=r"PRESET: there is no preset 'pcas'; choose from .*pacs"):
        run_study("pcas", None)
    with pytest.raises(SimgapError, match=r"DATA: .*nowhere is not a folder"):
        run_study("pacs", tmp_path / "nowhere")
    with pytest.raises(SimgapError, match="DATA: the preset toy copies no data"):
        run_study("toy", tmp_path)
