"""Compare the results of two finished studies, for example before and after a change that must not alter results.

Arrays, Parquet tables, weights and shards must be equal. JSON and CSV files must be equal after the renames of a key map.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq

FOLDERS = ("data", "metrics", "models", "report/tables")
PATH = click.Path(path_type=Path, exists=True)


@dataclass(frozen=True)
class KeyMap:
    """What was renamed between two studies.

    Attributes:
        names: New name by old name. A name is a component of a path or key, or a whole value.
        ignored: Keys of JSON files whose values are not compared.
    """

    names: dict[str, str]
    ignored: list[str]

    def rename(self, text: str) -> str:
        """Return a path, key or value with its components renamed; a component may end with the seed of a training."""
        return "".join(map(self._rename_component, re.split(r"([/,. ])", text)))

    def _rename_component(self, component: str) -> str:
        name, seed = re.fullmatch(r"(.*?)(-\d+)?", component, re.DOTALL).groups()  # type: ignore[union-attr]
        return self.names.get(name, name) + (seed or "")

    def convert(self, content: Any) -> Any:
        """Return JSON content with its keys and values renamed, without ignored keys."""
        if isinstance(content, dict):
            return {self.rename(k): self.convert(v) for k, v in content.items() if k not in self.ignored}
        if isinstance(content, list):
            return [self.convert(value) for value in content]
        return self.rename(content) if isinstance(content, str) else content


def _equal_arrays(first: Path, second: Path, names: KeyMap) -> bool:
    a, b = np.load(first, mmap_mode="r"), np.load(second, mmap_mode="r")
    return a.dtype == b.dtype and np.array_equal(a, b)


def _equal_tables(first: Path, second: Path, names: KeyMap) -> bool:
    return bool(pq.read_table(first).equals(pq.read_table(second)))


def _equal_json(first: Path, second: Path, names: KeyMap) -> bool:
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in (first, second)]
    return bool(names.convert(contents[0]) == KeyMap({}, names.ignored).convert(contents[1]))


def _equal_csv(first: Path, second: Path, names: KeyMap) -> bool:
    a, b = (list(csv.reader(path.read_text(encoding="utf-8").splitlines())) for path in (first, second))
    return [[names.rename(cell) for cell in row] for row in a] == b


def _equal_bytes(first: Path, second: Path, names: KeyMap) -> bool:
    return first.read_bytes() == second.read_bytes()


COMPARISONS = {".npy": _equal_arrays, ".parquet": _equal_tables, ".json": _equal_json, ".csv": _equal_csv}


@click.command()
@click.argument("before", type=PATH)
@click.argument("after", type=PATH)
@click.option("--key-map", type=PATH, help="JSON file with the keys `names` and `ignored`.")
def main(before: Path, after: Path, key_map: Path | None) -> None:
    """Compare the results in the repositories BEFORE and AFTER; exit with code 1 if they differ."""
    names = KeyMap(**json.loads(key_map.read_text())) if key_map else KeyMap({}, [])
    for missing in (root / folder for root in (before, after) for folder in FOLDERS if not (root / folder).is_dir()):
        raise click.UsageError(f"{missing} is not there; finish the study with `dvc repro`, or pull it")
    # Texts for people may be worded differently.
    wanted = [path for folder in FOLDERS for path in sorted((before / folder).rglob("*")) if path.is_file()]
    wanted = [path for path in wanted if path.suffix not in (".txt", ".md") or "data" in path.parts]
    equal: Counter[str] = Counter()
    problems = []
    found = set()
    for path in wanted:
        name = path.relative_to(before).as_posix()
        counterpart = after / names.rename(name)
        found.add(counterpart)
        if not counterpart.is_file():
            problems.append(f"{name}: missing as {counterpart.relative_to(after)}")
        elif COMPARISONS.get(path.suffix, _equal_bytes)(path, counterpart, names):
            equal[path.suffix] += 1
        else:
            problems.append(f"{name}: differs from {counterpart.relative_to(after)}")
    for path in (path for folder in ("data", "metrics", "models") for path in (after / folder).rglob("*")):
        if path.is_file() and path not in found:
            problems.append(f"{path.relative_to(after)}: only in AFTER")
    for problem in problems:
        click.echo(problem)
    click.echo(f"equal: {', '.join(f'{count} {suffix}' for suffix, count in sorted(equal.items()))}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
