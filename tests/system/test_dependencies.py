"""The graph names the code that each stage runs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

SOURCE = REPOSITORY / "src"
# They check, report and mirror, and cannot change an output; so do the parameters.py of the packages.
EXEMPT = {f"src/simgap/{name}" for name in ("params.py", "stage.py", "progress.py", "errors.py", "tracking/track.py")}
STAGES = {
    name: entry.get("do", entry)
    for name, entry in yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"].items()
}


def imported(file: Path) -> set[Path]:
    """Give the files of simgap that a file imports itself, at its top or inside a function."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
    paths = {SOURCE / f"{module.replace('.', '/')}.py" for module in modules if module.startswith("simgap")}
    return {path for path in paths if path.is_file()}


def code_of(module: str) -> set[str]:
    """Give all files of simgap that a stage's module runs, but for those that are exempt."""
    found: set[str] = set()
    waiting = imported(REPOSITORY / "stages" / f"{module}.py")
    while waiting:
        file = waiting.pop()
        name = file.relative_to(REPOSITORY).as_posix()
        if name not in found | EXEMPT and file.name != "parameters.py":
            found.add(name)
            waiting |= imported(file)
    return found


def files_of(dep: str) -> set[str]:
    """Give the files that a dependency stands for, without those that hold no code of their own."""
    path = REPOSITORY / dep
    files = path.rglob("*.py") if path.is_dir() else [path]
    named = {file.relative_to(REPOSITORY).as_posix() for file in files}
    return {name for name in named if Path(name).name not in ("__init__.py", "parameters.py")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_s_deps_name_the_code_that_it_runs_and_no_other(stage: str) -> None:
    module = STAGES[stage]["cmd"].split("stages.")[1].split()[0]
    deps = {dep for dep in STAGES[stage]["deps"] if dep.startswith(("src/", "stages/"))}
    assert set().union(*map(files_of, deps)) == {f"stages/{module}.py"} | code_of(module)
