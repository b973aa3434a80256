"""Write small datasets, convert them, and read the results."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from simgap.cli.main import main
from simgap.data.benchmarks import load_benchmark
from simgap.data.shards import Accounting, read_shard


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)], catch_exceptions=False)


def refused(*arguments: object) -> str:
    """Run a conversion that has to fail, and return its message."""
    result = convert(*arguments)
    assert result.exit_code == 1
    assert not Path(str(arguments[2])).exists()
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def written(benchmark: Path) -> list[tuple[int | None, bytes]]:
    """Return label and bytes of each image of a benchmark, and check that none is missing."""
    accounting = Accounting()
    shards = load_benchmark(benchmark).shards
    found = [sample for shard in shards for sample in read_shard(shard, accounting, caption=False, label=True)]
    assert accounting.metrics(len(found)) == {"read": len(found), "kept": len(found)}
    assert len({sample.key for sample in found}) == len(found)
    return [(sample.label, sample.image) for sample in found]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
