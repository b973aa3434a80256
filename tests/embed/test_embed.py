from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import UNBUILDABLE, jpeg, write_pool, write_tar

from simgap.clip.model import CONFIG_FILE, WEIGHTS_FILE, load
from simgap.core.errors import SimgapError
from simgap.core.files import read_json
from simgap.embed import embed as module
from simgap.embed.embed import embed, unit_norm
from simgap.params.embed import EmbedParameters
from simgap.store.embeddings import Embeddings

PARAMETERS = EmbedParameters(batch_size=8, precision="fp32", shards_per_part=2)


@pytest.fixture(scope="module")
def model(model_folder: Path):
    return load(model_folder)


def run(model, shards, out: Path, scratch: Path, classes=None, captioned=True, parameters=PARAMETERS, drop_limit=0.5):
    scratch.mkdir(exist_ok=True)
    accounting, rates = embed(
        parameters,
        lambda: model,
        "hash",
        tuple(shards),
        out,
        scratch,
        classes=classes,
        captioned=captioned,
        decoders=2,
        drop_limit=drop_limit,
    )
    assert rates["seconds"] > 0
    return accounting


def test_rows_follow_the_shards_and_everything_is_accounted_for(model, tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 3, 11)
    write_tar(
        pool / "00003.tar",
        [("a.jpg", b"broken"), ("a.txt", b"t"), ("b.jpg", jpeg(3)), ("c.jpg", jpeg(5)), ("c.txt", b"t")],
    )
    accounting = run(model, sorted(pool.glob("*.tar")), tmp_path / "out", tmp_path / "scratch")
    assert accounting == {
        "read": 36,
        "kept": 34,
        "dropped/broken_image": 1,
        "dropped/no_caption": 1,
        "dim": 16,
        "parts": 2,
    }
    found = Embeddings(tmp_path / "out")
    table = found.metadata(["shard", "key", "caption"]).to_pydict()
    assert table["key"] == [f"{s:05d}{i:04d}" for s in range(3) for i in range(11)] + ["c"]
    assert table["shard"][-1] == "00003.tar"
    vectors = found.read()
    assert vectors.dtype == np.float16
    assert np.allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=2e-3)


def test_a_vector_does_not_depend_on_its_batch(model, tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 1, 11)
    members = [("x.jpg", jpeg(7)), ("x.txt", b"t")]
    write_tar(tmp_path / "alone" / "0.tar", members)
    run(model, [pool / "00000.tar"], tmp_path / "many", tmp_path / "s1")
    run(model, [tmp_path / "alone" / "0.tar"], tmp_path / "one", tmp_path / "s2")
    assert np.array_equal(Embeddings(tmp_path / "many").read()[7], Embeddings(tmp_path / "one").read()[0])


def test_the_precision_reaches_the_model_and_fp16_needs_a_gpu(model, tmp_path: Path) -> None:
    shards = sorted(write_pool(tmp_path / "pool", 1, 11).glob("*.tar"))
    run(model, shards, tmp_path / "fp32", tmp_path / "s1")
    run(model, shards, tmp_path / "bf16", tmp_path / "s2", parameters=replace(PARAMETERS, precision="bf16"))
    assert not np.array_equal(*(Embeddings(tmp_path / name).read() for name in ("fp32", "bf16")))
    on_cpu = replace(model, device=torch.device("cpu"))
    with pytest.raises(
        SimgapError, match=r"embed\.precision is fp16, but this machine has no GPU; choose from fp32, bf16"
    ):
        run(
            on_cpu,
            [tmp_path / "nowhere.tar"],
            tmp_path / "out",
            tmp_path / "s3",
            parameters=replace(PARAMETERS, precision="fp16"),
        )
    assert not any((tmp_path / "s3").iterdir())


def test_a_killed_stage_resumes_with_the_same_bytes(model, tmp_path: Path, monkeypatch) -> None:
    shards = sorted(write_pool(tmp_path / "pool", 4, 5).glob("*.tar"))
    run(model, shards, tmp_path / "whole", tmp_path / "s1")
    done: list[str] = []
    real = module._embed_part

    def once(parameters, model, group, *rest):
        if done:
            raise KeyboardInterrupt
        done.append(group[0].name)
        return real(parameters, model, group, *rest)

    monkeypatch.setattr(module, "_embed_part", once)
    with pytest.raises(KeyboardInterrupt):
        run(model, shards, tmp_path / "again", tmp_path / "s2")
    assert not (tmp_path / "again").exists()

    def rest(parameters, model, group, *others):
        done.append(group[0].name)
        return real(parameters, model, group, *others)

    monkeypatch.setattr(module, "_embed_part", rest)
    run(model, shards, tmp_path / "again", tmp_path / "s2")
    assert done == ["00000.tar", "00002.tar"]
    for file in sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*")):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_vectors_that_are_not_finite_or_zero_are_counted() -> None:
    dropped: Counter[str] = Counter()
    raw = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1], [1e-30, 0]], np.float32)
    rows, good = unit_norm(raw, dropped)
    assert good.tolist() == [True, False, False, False, True]
    assert np.allclose(rows, [[0.6, 0.8], [1, 0]], atol=1e-3)
    assert dropped == {"not_finite": 2, "zero_norm": 1}


def test_limits(model, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.jpg", b"x"), ("a.cls", b"0"), ("b.jpg", jpeg(1)), ("b.cls", b"2")])
    strict = replace(PARAMETERS, shards_per_part=1)
    with pytest.raises(SimgapError, match=r"1 of 2 samples were dropped .*drop_limit 0\.1"):
        run(
            model,
            [tmp_path / "0.tar"],
            tmp_path / "out",
            tmp_path / "s1",
            classes=3,
            parameters=strict,
            drop_limit=0.1,
            captioned=False,
        )
    with pytest.raises(SimgapError, match="label 2 is outside the class list of 2"):
        run(model, [tmp_path / "0.tar"], tmp_path / "out", tmp_path / "s2", classes=2, captioned=False)
    whole = write_pool(tmp_path / "pool", 1, 6) / "00000.tar"
    whole.write_bytes(whole.read_bytes()[:8192])
    with pytest.raises(SimgapError, match="1 of 1 shards are truncated or corrupt"):
        run(model, [whole], tmp_path / "out", tmp_path / "s4", parameters=strict, drop_limit=0.1)
    write_tar(tmp_path / "1.tar", [("a.jpg", b"x"), ("a.txt", b"t")])
    with pytest.raises(SimgapError, match="none of its 1 samples"):
        run(model, [tmp_path / "1.tar"], tmp_path / "out", tmp_path / "s3")
    assert not (tmp_path / "out").exists()


def test_a_model_folder_with_a_missing_file(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SimgapError, match=CONFIG_FILE):
        load(tmp_path)
    (tmp_path / CONFIG_FILE).write_bytes((model_folder / CONFIG_FILE).read_bytes())
    with pytest.raises(SimgapError, match=WEIGHTS_FILE):
        load(tmp_path)


@pytest.mark.parametrize(("tower", "keys", "words"), UNBUILDABLE)
def test_a_model_folder_whose_config_open_clip_cannot_build(
    model_folder: Path, tmp_path: Path, tower: str, keys: dict[str, Any], words: str
) -> None:
    config = read_json(model_folder / CONFIG_FILE)
    config["model_cfg"][tower].update(keys)
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    (tmp_path / WEIGHTS_FILE).write_bytes((model_folder / WEIGHTS_FILE).read_bytes())
    with pytest.raises(SimgapError) as raised:
        load(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / CONFIG_FILE}: open_clip cannot build this model (")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_that_do_not_fit_the_config_are_refused(model_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / CONFIG_FILE).write_bytes((model_folder / CONFIG_FILE).read_bytes())
    state = load_file(model_folder / WEIGHTS_FILE)
    state.pop(next(iter(state)))
    save_file(state, tmp_path / WEIGHTS_FILE)
    with pytest.raises(SimgapError, match="do not fit the config"):
        load(tmp_path)
    save_file({}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(SimgapError, match="do not fit the config"):
        load(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"no weights")
    with pytest.raises(SimgapError, match="do not fit the config"):
        load(tmp_path)


def test_embeddings_with_inconsistent_files_are_refused(store) -> None:
    found = store("pool", np.eye(6, dtype=np.float16), parts=2)
    (found.folder / "img_emb" / "img_emb_0001.npy").unlink()
    with pytest.raises(SimgapError, match="the vectors have 3 rows"):
        Embeddings(found.folder)
    np.save(found.folder / "img_emb" / "img_emb_0001.npy", np.eye(6, dtype=np.float32)[3:])
    with pytest.raises(SimgapError, match="float16"):
        Embeddings(found.folder)
    (found.folder / "img_emb" / "img_emb_0001.npy").write_bytes(b"no array")
    with pytest.raises(SimgapError, match=r"img_emb_0001\.npy: the file cannot be read as a NumPy array"):
        Embeddings(found.folder)
    whole = store("whole", np.eye(6, dtype=np.float16), parts=2)
    (whole.folder / "metadata" / "metadata_0001.parquet").unlink()
    with pytest.raises(SimgapError, match="the metadata have 3 rows, but the vectors have 6"):
        whole.metadata(["key"])
    longer = store("longer", np.eye(6, dtype=np.float16), parts=2)
    part = longer.folder / "metadata" / "metadata_0000.parquet"
    pq.write_table(pa.concat_tables([pq.read_table(part)] * 3), part)
    with pytest.raises(SimgapError, match="the metadata have 9 rows, but the vectors have 6"):
        longer.metadata(["key"])
    for content in ("[]", '{"rows": 6, "dim": 6}'):
        (whole.folder / "embeddings.json").write_text(content)
        with pytest.raises(SimgapError, match="does not record embedder"):
            Embeddings(whole.folder)


def test_reading_rows(store) -> None:
    vectors = np.eye(9, dtype=np.float16)
    found = store("pool", vectors, parts=4)
    assert np.array_equal(found.read(), vectors)
    assert np.array_equal(found.take(np.array([0, 3, 4, 8])), vectors[[0, 3, 4, 8]])
    blocks = list(found.blocks(2))
    assert np.array_equal(np.concatenate([block for _, block in blocks]), vectors)
    assert [first for first, _ in blocks] == sorted(first for first, _ in blocks)
