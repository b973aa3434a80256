"""Fingerprints of the code that a stage runs.

A stage depends on the fingerprint of its code, not on source files. So an edit reruns the stages that import the edited
module, directly or not, and no others.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = "simgap"
SOURCE = Path(__file__).resolve().parents[2]
# Nearly every stage imports these. They check, report and mirror, and cannot change an output.
LEFT_OUT = ("simgap.params", "simgap.stage", "simgap.tracking", "simgap.core.errors", "simgap.core.progress")


def code_of(file: Path) -> dict[str, str]:
    """Return the hash of every module of simgap that a Python file imports, directly or not, and of the file itself.

    Imports inside functions count. `__init__` modules hold no code and are left out, and so is everything in `LEFT_OUT`. The
    data files of a package, such as templates, count with each of its modules. Hashes are of bytes: syntax trees differ
    between versions of Python.

    Args:
        file: A module of simgap, or a program that imports it.

    Returns:
        SHA-256 by name, sorted: `simgap.report.page` for a module, `simgap/report/templates/page.html` for a data file, and
        `stages.report` for a program in a folder `stages`.
    """
    found: dict[str, str] = {}
    waiting = [(_name(file.resolve()), file.resolve())]
    while waiting:
        name, path = waiting.pop()
        if name in found:
            continue
        found[name] = _hash(path)
        waiting += _imports(path)
        if path.is_relative_to(SOURCE):
            found |= {data.relative_to(SOURCE).as_posix(): _hash(data) for data in _data_files(path.parent)}
    return dict(sorted(found.items()))


def code_lines(file: Path) -> str:
    """Return `code_of` as text: a line `name hash` for each module or data file."""
    return "".join(f"{name} {digest}\n" for name, digest in code_of(file).items())


@cache
def code_fingerprint(file: str | Path) -> str:
    """Return one SHA-256 over `code_lines`: the name under which unfinished work of this code is kept."""
    return hashlib.sha256(code_lines(Path(file)).encode()).hexdigest()


def _name(path: Path) -> str:
    root = SOURCE if path.is_relative_to(SOURCE) else path.parents[1]
    return ".".join(path.relative_to(root).with_suffix("").parts)


@cache
def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _imports(path: Path) -> list[tuple[str, Path]]:
    """Return name and file of the modules of simgap that a file imports itself."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            # What is imported from a package may be a module.
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    own = [name for name in names if name.startswith(f"{PACKAGE}.") and not _is_left_out(name)]
    files = [(name, SOURCE / f"{name.replace('.', '/')}.py") for name in sorted(own)]
    return [(name, file) for name, file in files if file.is_file()]


def _is_left_out(name: str) -> bool:
    return any(name == left_out or name.startswith(f"{left_out}.") for left_out in LEFT_OUT)


@cache
def _data_files(package: Path) -> list[Path]:
    """Return the files of a package that are not Python, without those of its subpackages."""
    subpackages = {init.parent for init in package.rglob("__init__.py")} - {package}
    files = (file for file in package.rglob("*") if file.is_file() and file.suffix != ".py")
    own = (file for file in files if not subpackages.intersection(file.parents))
    return sorted(file for file in own if "__pycache__" not in file.parts)
