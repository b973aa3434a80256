"""Import the embeddings of a pool, measure its similarity, train on it and export it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from click.testing import CliRunner, Result
from conftest import MODEL_CONFIG, REPOSITORY, jpeg, write_benchmark, write_pool, write_tar
from studies import put_params

from simgap.cli.main import main
from simgap.clip.model import WEIGHTS_FILE
from simgap.core.files import read_json
from simgap.store.embeddings import Embeddings
from simgap.store.split import read_split, write_split
from stages import deduplicate, embed, similarity, train

SHARDS, SAMPLES = 3, 6
POOL, EMBEDDINGS, FOREIGN = Path("pool"), Path("data", "embeddings"), Path("foreign")
# Rows of the shards alternate within the two parts, and one shard has rows in both parts.
ORDER = [0, 6, 1, 7, 2, 8, 3, 9, 12, 4, 11, 10, 5, 14, 13, 17, 16, 15]
KEEP = np.array([place % 4 > 0 for place in range(len(ORDER))])


def run(command, *options: object) -> Result:
    return CliRunner().invoke(command, [str(option) for option in options])


def run_checked(command, *options: object) -> None:
    result = run(command, *options)
    assert result.exit_code == 0, result.output


def embed_set(kind: str, data: Path, out: Path) -> Result:
    options = ("--set", kind, "--data", data, "--embedder", "embedder", "--out", out, "--metrics", "metrics/embed.json")
    return run(embed.main, *options)


def train_on(split: str, out: str) -> Result:
    options = {"--keep": f"data/splits/{split}/keep.npy", "--embeddings": EMBEDDINGS, "--pool": POOL, "--seed": 0, "--out": out,
               "--reference": "reference", "--split": "full", "--metrics": "metrics/train.json"}  # fmt: skip
    return run(train.main, *(part for option in options.items() for part in option))


def make_splits(keep: np.ndarray) -> None:
    """Write the split `full`, which keeps all rows, and the split `some`."""
    options = ("--pool", EMBEDDINGS / "pool", "--centroids", "data/centroids.npy")
    run_checked(deduplicate.main, *options, "--out", "data/splits/full", "--metrics", "metrics/full.json")
    full = read_split(Path("data", "splits", "full"))
    assert full.kept == len(keep)
    write_split(replace(full, kept=int(keep.sum())), keep, Path("data", "splits", "some"))


def samples_of_pool() -> list[tuple[str, str, dict[str, bytes]]]:
    """Return the shard, key and members of each sample. Some keys occur in several shards."""
    rows = []
    for shard in range(SHARDS):
        for index in range(SAMPLES):
            number = SAMPLES * shard + index
            key = f"{index:04d}" if index < 2 else f"{number:09d}"
            content = json.dumps({"uid": f"{7919 * (number + 1):032x}"}).encode()
            held = {"jpg": jpeg(number), "txt": f"thing {number}".encode(), "json": content}
            rows.append((f"{shard:05d}.tar", key, held))
    return rows


@pytest.fixture
def study(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, str, dict[str, bytes]]]:
    """Write data, params and the pool's embeddings in the format of clip-retrieval, and return the samples in row order."""
    monkeypatch.chdir(tmp_path)
    toy = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())
    small = {"model": "presets/models/tiny.json", "samples_seen": 24, "batch_size": 6}
    put_params(
        tmp_path,
        pool={"path": str(POOL), "embed": str(FOREIGN), "shard_digits": None},
        train={**toy["train"], **small},
        deduplicate={**toy["deduplicate"], "clusters": 2, "eps": None},
        reference={**toy["reference"], "classnames": "classnames.txt"},
    )
    Path("presets", "models", "tiny.json").write_text(json.dumps(MODEL_CONFIG))
    Path("embedder").symlink_to(model_folder)
    Path("classnames.txt").write_text("cat\ndog\n")
    samples = samples_of_pool()
    for shard in range(SHARDS):
        in_shard = samples[SAMPLES * shard : SAMPLES * (shard + 1)]
        members = [(f"{key}.{suffix}", data) for _, key, held in in_shard for suffix, data in held.items()]
        write_tar(POOL / f"{shard:05d}.tar", members)
    write_pool(Path("reference"), 1, 6, labels=True)
    write_benchmark(Path("benchmark"), [0, 1, 0, 1], ["cat", "dog"])
    assert embed_set("reference", Path("reference"), EMBEDDINGS / "reference").exit_code == 0
    assert embed_set("benchmark", Path("benchmark"), EMBEDDINGS / "val").exit_code == 0
    assert embed_set("pool", POOL, Path("own")).exit_code == 0
    vectors = Embeddings(Path("own")).read()[ORDER]
    rows = [samples[place] for place in ORDER]
    for name in ("img_emb", "metadata"):
        (FOREIGN / name).mkdir(parents=True)
    for number, part in enumerate((slice(0, 10), slice(10, None))):
        np.save(FOREIGN / "img_emb" / f"img_emb_{number}.npy", vectors[part])
        table = {
            "image_path": [key for _, key, _ in rows[part]],
            "caption": [held["txt"].decode() for *_, held in rows[part]],
        }
        pq.write_table(pa.table(table), FOREIGN / "metadata" / f"metadata_{number}.parquet")
    return rows


def map_shards(shards: list[str]) -> None:
    (FOREIGN / "shards").mkdir()
    for number, part in enumerate((slice(0, 10), slice(10, None))):
        pq.write_table(pa.table({"shard": shards[part]}), FOREIGN / "shards" / f"shards_{number}.parquet")


def test_an_import_with_shards_can_be_trained_on_and_exported(study) -> None:
    map_shards([shard for shard, _, _ in study])
    assert embed_set("pool", FOREIGN, EMBEDDINGS / "pool").exit_code == 0
    make_splits(KEEP)
    kept = [row for row, is_kept in zip(study, KEEP, strict=True) if is_kept]
    trained = train_on("some", "models/imported")
    assert trained.exit_code == 0, trained.output
    metrics = read_json(Path("metrics", "train.json"))
    assert (metrics["kept_rows"], metrics["reference_rows"]) == (len(kept), 6)

    def export(form: str, out: str, *options: str) -> Result:
        return run(main, "export", form, "some", out, *options)

    uids = [json.loads(held["json"])["uid"] for *_, held in kept]
    assert export("datacomp", "some.npy").output.startswith(f"some.npy: {len(kept)} uids")
    assert np.load("some.npy").tolist() == sorted((int(uid[:16], 16), int(uid[16:], 16)) for uid in uids)
    assert export("keys", "some.txt").output.startswith(f"some.txt: {len(kept)} keys")
    assert Path("some.txt").read_text() == "".join(f"{shard}\t{key}\n" for shard, key, _ in kept)
    assert export("shards", "shards", "--samples-per-shard", "5").output.startswith(f"shards: {len(kept)} samples in ")
    urls = sorted(map(str, Path("shards").glob("*.tar")))
    found = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    in_tars = samples_of_pool()
    expected = [row for part in (study[:10], study[10:]) for row in sorted(part, key=in_tars.index) if row in kept]
    assert [
        {suffix: sample[suffix] for suffix in held} for sample, (*_, held) in zip(found, expected, strict=True)
    ] == [held for *_, held in expected]
    assert len({sample["__key__"] for sample in found}) == len(kept)

    # The same samples give the same model if the study embeds the pool itself.
    (EMBEDDINGS / "pool").rename("imported")
    Path("own").rename(EMBEDDINGS / "pool")
    make_splits(KEEP[np.argsort(ORDER)])
    assert train_on("some", "models/own").exit_code == 0
    weights = [Path("models", name, WEIGHTS_FILE).read_bytes() for name in ("imported", "own")]
    assert weights[0] == weights[1]


def test_an_import_without_shards_can_only_be_measured(study) -> None:
    assert embed_set("pool", FOREIGN, EMBEDDINGS / "pool").exit_code == 0
    make_splits(KEEP)
    sets = {f"--{name}": EMBEDDINGS / name for name in ("pool", "reference")}
    options = {
        **sets,
        "--benchmark": EMBEDDINGS / "val",
        "--out": "data/similarity/val",
        "--metrics": "metrics/val.json",
    }
    run_checked(similarity.main, *(part for option in options.items() for part in option))
    vectors = Embeddings(EMBEDDINGS / "pool").read().astype(np.float64)
    queries = Embeddings(EMBEDDINGS / "val").read().astype(np.float64)
    table = pq.read_table("data/similarity/val/queries.parquet")
    assert table.column("pool_similarity").to_pylist() == [float(np.float32((vectors @ q).max())) for q in queries]
    before = sorted(path for path in Path().rglob("*") if "scratch" not in path.parts)
    refused = [train_on("some", "models/some")]
    refused += [
        run(main, "export", form, "some", out)
        for form, out in (("keys", "x.txt"), ("datacomp", "x.npy"), ("shards", "x"))
    ]
    assert {(result.exit_code, result.output) for result in refused} == {
        (1, "error: data/embeddings/pool: the metadata name no shards, and training and export need the shards; "
            "import the embeddings together with their shards\n")
    }  # fmt: skip
    assert sorted(path for path in Path().rglob("*") if "scratch" not in path.parts) == before


def test_an_import_fails_if_the_pool_lacks_a_shard(study) -> None:
    map_shards([shard.removesuffix(".tar") for shard, _, _ in study])
    result = embed_set("pool", FOREIGN, EMBEDDINGS / "pool")
    line = "error: pool: has no shard '00000' and 2 more, but rows of foreign/shards/shards_0.parquet need it; "
    assert (result.exit_code, result.output) == (1, f"{line}the pool must have the shards of all rows\n")
    assert not (EMBEDDINGS / "pool").exists()


def test_pool_path_may_name_the_embeddings_if_there_are_no_tars(study) -> None:
    map_shards([shard for shard, _, _ in study])
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["pool"]["path"] = f"./{FOREIGN}/"
    Path("params.yaml").write_text(yaml.safe_dump(content))
    assert embed_set("pool", FOREIGN, EMBEDDINGS / "pool").exit_code == 0
