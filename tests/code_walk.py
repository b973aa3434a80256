"""A naive walk over the imports of the stages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from conftest import REPOSITORY

SOURCE = REPOSITORY / "src"
STAGES = sorted(file for file in (REPOSITORY / "stages").glob("*.py") if file.name != "__init__.py")
LEFT_OUT = re.compile(
    r"simgap\.(params|stage|tracking)(\..*)?|simgap\.core\.(code|errors|progress)|simgap\.data\.fingerprint"
)


def imports(file: Path) -> set[str]:
    """Return the modules of simgap that a file imports itself, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
    return {name for name in names if name.startswith("simgap.") and (SOURCE / path_of(name)).is_file()}


def path_of(name: str) -> str:
    return f"{name.replace('.', '/')}.py"


def used_by(stage: Path) -> set[str]:
    """Return the modules that a stage runs, except those that change no output."""
    found: set[str] = set()
    waiting = imports(stage)
    while waiting:
        name = waiting.pop()
        if name not in found and not LEFT_OUT.fullmatch(name):
            found.add(name)
            waiting |= imports(SOURCE / path_of(name))
    return found
