"""Draw docstrings, comments and messages at random, for a reader who judges the language of the code.

The sample depends on the seed and on the code only.
"""

from __future__ import annotations

import ast
import random
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click

FOLDERS = ("src", "stages", "perf")
# Shorter texts say too little to be judged.
SHORTEST = 25


def _texts(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, kind and text of every docstring, block of comments and message of a file."""
    tree = ast.parse(file.read_bytes())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, "docstring", text
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("SimgapError", "click.echo", "click.option"):
            help_texts = [keyword.value for keyword in node.keywords if keyword.arg == "help"]
            for argument in help_texts or ([] if ast.unparse(node.func) == "click.option" else node.args[:1]):
                yield argument.lineno, "message", ast.unparse(argument)
    with file.open("rb") as stream:
        block: list[tuple[int, str]] = []
        for token in tokenize.tokenize(stream.readline):
            if token.type == tokenize.COMMENT:
                block.append((token.start[0], token.string.lstrip("# ")))
            elif token.type not in (tokenize.NL, tokenize.NEWLINE) and block:
                yield block[0][0], "comment", " ".join(text for _, text in block)
                block = []


@click.command()
@click.option("--seed", type=int, default=14, show_default=True)
@click.option("--count", type=click.IntRange(1), default=40, show_default=True)
def main(seed: int, count: int) -> None:
    """Print a sample of docstrings, comments and messages, each with its place."""
    found = [
        (f"{file}:{line}", kind, text)
        for folder in FOLDERS
        for file in sorted(Path(folder).rglob("*.py"))
        for line, kind, text in _texts(file)
        if len(text) >= SHORTEST and not text.startswith(("type:", "fmt:", "noqa"))
    ]
    for number, (place, kind, text) in enumerate(random.Random(seed).sample(found, count), 1):
        click.echo(f"{number}. {place} ({kind})\n{text}\n")


if __name__ == "__main__":
    main()
