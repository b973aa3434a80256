"""Write a finished study of one small pool for `simgap export`."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from click.testing import CliRunner, Result
from conftest import REPOSITORY, write_tar

from simgap.cli.main import main
from simgap.store.embeddings import Embeddings
from simgap.store.split import Split, write_split


@dataclass(frozen=True)
class Study:
    """A workspace, and the samples of its pool in row order: shard, key and members by suffix."""

    folder: Path
    rows: list[tuple[str, str, dict[str, bytes]]]

    def keep(self, name: str, keep: list[bool], reference_rows: bool = False) -> None:
        embeddings = Embeddings(self.folder / "data" / "embeddings" / "pool")
        counts = {"kept": sum(keep), "pool_rows": len(keep)}
        split = Split("random", {}, [], None, **counts, kept_description="x", reference_rows=reference_rows,
                      row_order=embeddings.row_order, controls=None)  # fmt: skip
        write_split(split, np.array(keep), self.folder / "data" / "splits" / name)

    def kept(self, keep: list[bool]) -> list[tuple[str, str, dict[str, bytes]]]:
        return [row for row, is_kept in zip(self.rows, keep, strict=True) if is_kept]

    def parts(self) -> list[list[tuple[str, str, dict[str, bytes]]]]:
        """Return the rows of each part of the embeddings."""
        rows = iter(self.rows)
        return [list(itertools.islice(rows, pq.read_metadata(path).num_rows)) for path in self._metadata()]

    def mixed(self, order: list[int]) -> Study:
        """Put the rows into another order, as an import may have them. The parts keep their sizes."""
        study = Study(self.folder, [self.rows[place] for place in order])
        for path, rows in zip(self._metadata(), study.parts(), strict=True):
            table = {"shard": [shard for shard, _, _ in rows], "key": [key for _, key, _ in rows]}
            pq.write_table(pa.table(table, pq.read_schema(path)), path)
        return study

    def _metadata(self) -> list[Path]:
        return sorted((self.folder / "data" / "embeddings" / "pool" / "metadata").iterdir())

    def export(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["export", *arguments])

    def refused(self, *arguments: str) -> str:
        """Run an export that must fail with one line and change no file. Return the line."""
        before = self._files()
        result = self.export(*arguments)
        assert result.exit_code == 1
        assert result.output.startswith("error: ")
        assert result.output.count("\n") == 1
        assert self._files() == before
        return result.output

    def _files(self) -> list[Path]:
        """List all files except finished parts, which are kept in a hidden folder."""
        return sorted(path for path in self.folder.rglob("*") if ".exporting" not in str(path))


def uid_of(shard: int, index: int) -> str:
    return f"{(7919 * (100 * shard + index + 1)) ** 9 % 2**128:032x}"


def write_study(folder: Path, samples: tuple[int, ...], shards_per_part: int = 2) -> Study:
    """Write params, pool and embeddings of a study. `samples` has the number of samples of each shard."""
    content = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    content["pool"]["path"] = "pool"
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    shutil.copytree(REPOSITORY / "presets" / "models", folder / "presets" / "models")
    rows = []
    for shard, count in enumerate(samples):
        members: list[tuple[str, bytes]] = []
        for index in range(count):
            # Shards share keys, as LAION's do. One key tries to leave the folder.
            key = "../../evil" if index == 1 else f"{index:04d}"
            held = {
                "jpg": bytes([shard, index]) * (400 * index + 1),
                "txt": f"käse {index}".encode(),
                "json": json.dumps({"key": key, "uid": uid_of(shard, index)}).encode(),
                "meta.bin": b"",
            }
            members += [(f"{key}.{suffix}", data) for suffix, data in held.items()]
            rows.append((f"{shard:05d}.tar", key, held))
        write_tar(folder / "pool" / f"{shard:05d}.tar", members)
    embeddings = folder / "data" / "embeddings" / "pool"
    (embeddings / "img_emb").mkdir(parents=True)
    (embeddings / "metadata").mkdir()
    for number, first in enumerate(range(0, len(samples), shards_per_part)):
        names = [f"{shard:05d}.tar" for shard in range(first, min(first + shards_per_part, len(samples)))]
        part = [row for row in rows if row[0] in names]
        np.save(embeddings / "img_emb" / f"img_emb_{number:04d}.npy", np.ones((len(part), 1), np.float16))
        table = pa.table({"shard": [shard for shard, _, _ in part], "key": [key for _, key, _ in part]})
        pq.write_table(table, embeddings / "metadata" / f"metadata_{number:04d}.parquet")
    (embeddings / "embeddings.json").write_text(json.dumps({"embedder": "e", "rows": len(rows), "dim": 1}))
    return Study(folder, rows)
