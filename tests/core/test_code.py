"""Check that the fingerprint of a stage covers the code that the stage runs."""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
from pathlib import Path

import pytest
import yaml
from code_walk import SOURCE, STAGES, path_of, used_by
from conftest import REPOSITORY

from simgap.core import code as module
from simgap.core.code import code_fingerprint, code_lines, code_of
from simgap.core.errors import SimgapError


@pytest.mark.parametrize("stage", STAGES, ids=lambda path: path.stem)
def test_a_fingerprint_covers_every_module_and_data_file_that_the_stage_uses(stage: Path) -> None:
    expected = {name: SOURCE / path_of(name) for name in used_by(stage)}
    for folder in {file.parent for file in expected.values()}:
        for data in (folder, *(child for child in folder.iterdir() if child.is_dir())):
            if data == folder or (not (data / "__init__.py").exists() and data.name != "__pycache__"):
                files = [file for file in data.iterdir() if file.is_file() and file.suffix != ".py"]
                expected |= {file.relative_to(SOURCE).as_posix(): file for file in files}
    expected[f"stages.{stage.stem}"] = stage
    assert code_of(stage) == {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in expected.items()}


def test_every_stage_of_the_graph_depends_on_its_fingerprint_and_on_no_source_file() -> None:
    for name, entry in yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"].items():
        stage = entry.get("do", entry)
        deps = [dep for dep in stage["deps"] if dep.startswith(("src", "stages", "code/"))]
        command = re.search(r"-m stages\.(\w+)", stage["cmd"])[1]
        assert deps == (["stages", "src/simgap"] if name == "code" else [f"code/{command}.txt"])


def test_package_markers_hold_no_code() -> None:
    """No fingerprint covers `__init__.py` files, so they may hold only docstrings."""
    for file in (SOURCE / "simgap").rglob("__init__.py"):
        body = ast.parse(file.read_text()).body
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), file


def test_a_fingerprint_changes_with_a_module_and_with_a_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SOURCE / "simgap", tmp_path / "src" / "simgap")
    shutil.copytree(REPOSITORY / "stages", tmp_path / "stages")
    monkeypatch.setattr(module, "SOURCE", tmp_path / "src")

    def fingerprint(stage: str) -> str:
        for cached in (module._hash, module._imports, module._data_files, code_fingerprint):
            cached.cache_clear()
        return code_fingerprint(tmp_path / "stages" / f"{stage}.py")

    def edit(name: str) -> None:
        with (tmp_path / "src" / "simgap" / name).open("a") as stream:
            stream.write("\n")

    report, prune = fingerprint("report"), fingerprint("prune")
    for stray in ("report/.page.py.swp", "report/templates/page.html~", "core/.DS_Store", "core/__pycache__/files.nbi"):
        (tmp_path / "src" / "simgap" / stray).parent.mkdir(exist_ok=True)
        edit(stray)
    edit("params/train.py")
    assert (fingerprint("report"), fingerprint("prune")) == (report, prune)
    edit("report/templates/page.html")
    assert fingerprint("report") != report
    assert fingerprint("prune") == prune
    edit("core/files.py")
    assert fingerprint("prune") != prune


def test_a_module_that_is_not_python_is_named(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text("import simgap.core.files\nif:\n")
    with pytest.raises(SimgapError, match=r"stage\.py: line 2: not Python"):
        code_of(tmp_path / "stage.py")


def test_the_committed_fingerprints_are_those_of_the_code() -> None:
    """If this fails: dvc repro."""
    expected = {f"{stage.stem}.txt": code_lines(stage) for stage in STAGES if stage.stem != "code"}
    assert {file.name: file.read_text() for file in (REPOSITORY / "code").iterdir()} == expected
