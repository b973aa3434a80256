"""Fixtures and helpers that many tests use."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from simgap.store.embeddings import Embeddings

# Without a GPU, Triton's interpreter runs the kernels. The variable must be set before Triton is imported.
if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ["TRITON_INTERPRET"] = "1"

REPOSITORY = Path(__file__).resolve().parents[1]
PACS = REPOSITORY.parent / "shared" / "pacs96"


@pytest.fixture(scope="session")
def pacs() -> Path:
    if not PACS.is_dir():
        pytest.skip("the images of shared/pacs96 are missing")
    return PACS


def jpeg(seed: int, size: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((size, size)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def unit_rows(rows: int, dim: int, seed: int) -> np.ndarray:
    """Draw unit-norm fp16 vectors on a coarse grid, so that equal similarities are common."""
    random = np.random.default_rng(seed)
    vectors = random.integers(-2, 3, (rows, dim)).astype(np.float64)
    vectors[np.abs(vectors).sum(axis=1) == 0, 0] = 1
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Embeddings]:
    """Return a function that writes vectors as the embeddings of a set, in parts."""

    def write(name: str, vectors: np.ndarray, parts: int = 1, labels: Any = None, embedder: str = "e") -> Embeddings:
        folder = tmp_path / "embeddings" / name
        (folder / "img_emb").mkdir(parents=True)
        (folder / "metadata").mkdir()
        row = 0
        for number, part in enumerate(np.array_split(vectors, parts)):
            np.save(folder / "img_emb" / f"img_emb_{number:04d}.npy", part)
            rows = range(row, row + len(part))
            table = {"shard": [f"{number:05d}.tar"] * len(part), "key": [f"{r:09d}" for r in rows]}
            if labels is not None:
                table["label"] = pa.array([int(labels[r]) for r in rows], pa.int32())
            pq.write_table(pa.table(table), folder / "metadata" / f"metadata_{number:04d}.parquet")
            row += len(part)
        info = {"embedder": embedder, "rows": len(vectors), "dim": int(vectors.shape[1]), "read": len(vectors)}
        (folder / "embeddings.json").write_text(json.dumps(info))
        return Embeddings(folder)

    return write


def write_benchmark(folder: Path, labels: list[int], classes: list[str], seed: int = 0) -> Path:
    members = []
    for index, label in enumerate(labels):
        members += [(f"{index:04d}.jpg", jpeg(1000 * seed + index)), (f"{index:04d}.cls", str(label).encode())]
    write_tar(folder / "test" / "0.tar", members)
    (folder / "test" / "nshards.txt").write_text("1\n")
    (folder / "classnames.txt").write_text("\n".join(classes) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}\na {c}\n")
    return folder


def write_pool(folder: Path, shards: int, rows: int, labels: bool = False) -> Path:
    for shard in range(shards):
        members: list[tuple[str, bytes]] = []
        for index in range(rows):
            key = f"{shard:05d}{index:04d}"
            members += [
                (f"{key}.jpg", jpeg(shard * rows + index)),
                (f"{key}.txt", f"thing {index} of {shard}".encode()),
            ]
            if labels:
                members.append((f"{key}.cls", str(index % 2).encode()))
        write_tar(folder / f"{shard:05d}.tar", members)
    return folder


def _cut_off(table: Path) -> None:
    table.write_bytes(table.read_bytes()[:-40])


def _overwritten(table: Path) -> None:
    """Overwrite values, but not the end of the file, which describes the table."""
    content = table.read_bytes()
    table.write_bytes(content[:4] + b"\xff" * 40 + content[44:])


def _not_utf8(table: Path) -> None:
    read = pq.read_table(table)
    columns = [pa.array([b"\xff"] * read.num_rows).cast(pa.string(), safe=False) for _ in read.column_names]
    pq.write_table(pa.table(columns, names=read.column_names), table)


# Ways to damage a Parquet file of text.
DAMAGES = [_cut_off, _overwritten, _not_utf8]

MODEL_CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "quick_gelu": False,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
    },
    "preprocess_cfg": {
        "size": 16,
        "mode": "RGB",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


# Configurations that open_clip cannot build: the tower, changed keys, and a part of the error.
UNBUILDABLE = [
    ("vision_cfg", {"timm_model_name": "no_such_model"}, "no_such_model"),
    ("vision_cfg", {"timm_model_name": "resnet18", "timm_pool": "none_such"}, "none_such"),
    ("vision_cfg", {"timm_model_name": "vit_tiny_patch16_224"}, "Input height (16) doesn't match model (224)"),
    ("vision_cfg", {"patchsize": 8}, "patchsize"),
    ("vision_cfg", {"width": "32"}, "TypeError"),
    ("vision_cfg", {"head_width": 0}, "ZeroDivisionError"),
    ("vision_cfg", {"layers": [1, 1]}, "IndexError"),
    ("vision_cfg", {"pool_type": "most"}, "AssertionError"),
    ("text_cfg", {"heads": 3}, "AssertionError"),
    ("text_cfg", {"width": -1}, "RuntimeError"),
    ("text_cfg", {"tokenizer_kwargs": {"clean": "most"}}, "most"),
]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tiny CLIP with random weights as an open_clip local directory."""
    from simgap.clip.model import save
    from simgap.train.train import build

    scratch = tmp_path_factory.mktemp("model")
    clip, _ = build(MODEL_CONFIG, 0, scratch)
    save(clip, MODEL_CONFIG, scratch / "model")
    return scratch / "model"
