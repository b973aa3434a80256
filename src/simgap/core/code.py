"""Compute fingerprints of the code that a stage runs.

A stage depends on the fingerprint of its code, not on source files. An edit of a module therefore reruns only the stages that
import this module, directly or through other modules.
"""

from __future__ import annotations

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

from simgap.core.errors import SimgapError

PACKAGE = "simgap"
SOURCE = Path(__file__).resolve().parents[2]
# Fingerprints leave out these modules. They only check parameters, report errors and copy metrics to MLflow, so an edit cannot
# change the output of a stage. Nearly every stage imports them, so each edit would rerun nearly all stages.
LEFT_OUT = (
    "simgap.params", "simgap.stage", "simgap.tracking",
    "simgap.core.code", "simgap.core.errors", "simgap.core.progress", "simgap.data.fingerprint",
)  # fmt: skip
# Compiled files, hidden files and backups of editors are no part of a package.
STRAY = re.compile(r"/__pycache__/|/\.[^/]*$|(~|\.orig|\.swp|\.pyc)$")


def code_of(file: Path) -> dict[str, str]:
    """Return the hashes of a Python file and of every module of simgap that the file needs.

    The file needs the modules that it imports directly or through other modules. Imports inside functions are included.
    `__init__` modules contain no code and are left out. The modules in `LEFT_OUT` are left out too. If the file needs a
    module, all data files of the module's package, such as templates, are included. The hashes cover the bytes of the files,
    because syntax trees differ between versions of Python.

    Args:
        file: A module of simgap, or a program that imports simgap.

    Returns:
        Map from name to SHA-256, sorted by name. The name is `simgap.report.page` for a module,
        `simgap/report/templates/page.html` for a data file, and `stages.report` for a program in a folder `stages`.
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
    """Return the result of `code_of` as text, with one line `NAME HASH` for each file."""
    return "".join(f"{name} {digest}\n" for name, digest in code_of(file).items())


@cache
def code_fingerprint(file: str | Path) -> str:
    """Return the SHA-256 of the text of `code_lines`. The cache keys of unfinished work contain this hash."""
    return hashlib.sha256(code_lines(Path(file)).encode()).hexdigest()


def _name(path: Path) -> str:
    root = SOURCE if path.is_relative_to(SOURCE) else path.parents[1]
    return ".".join(path.relative_to(root).with_suffix("").parts)


@cache
def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _imports(path: Path) -> list[tuple[str, Path]]:
    """Return the name and the file of each module of simgap that a file imports directly."""
    names: set[str] = set()
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise SimgapError(f"{path}: line {error.lineno}: not Python ({error.msg}); correct the file") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name` may import a module of the package, so both names are candidates.
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
    """Return the files of a package that are not Python files. Files of subpackages are left out."""
    subpackages = {init.parent for init in package.rglob("__init__.py")} - {package}
    files = (file for file in package.rglob("*") if file.is_file() and not STRAY.search(file.as_posix()))
    return sorted(file for file in files if file.suffix != ".py" and not subpackages.intersection(file.parents))
