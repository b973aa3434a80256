"""Read a pool from S3 over an unreliable network, and compare the results with those of a local pool."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
import studies
import yaml
from clusters import ray_cluster
from conftest import MODEL_CONFIG, REPOSITORY, write_pool, write_tar
from object_stores import CREDENTIALS, Proxy, object_store, proxy, s3_client
from s3fs import S3FileSystem
from studies import call, put_params

from simgap.clip.model import load
from simgap.core.errors import SimgapError
from simgap.core.executor import LOCAL, Executor
from simgap.core.files import sha256_of
from simgap.data import remote
from simgap.data.manifest import MANIFEST, write_manifest
from simgap.data.remote import list_shards, stream
from simgap.data.shards import Accounting, find_shards, read_samples, read_shard
from simgap.embed.embed import embed
from simgap.params.embed import EmbedParameters
from simgap.params.resources import TrainResources
from simgap.params.train import TrainParameters
from simgap.store.embeddings import Embeddings
from simgap.train.data import kept_shards, readable_shards
from simgap.train.train import train

pytestmark = pytest.mark.slow

BUCKET = "pools"
ADDRESS = f"s3://{BUCKET}/pool"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with object_store(BUCKET, tmp_path_factory.mktemp("server") / "log") as address:
        yield address


@pytest.fixture(scope="module")
def local(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a pool to a folder and to the store. One shard is truncated, and one sample is broken."""
    folder = write_pool(tmp_path_factory.mktemp("pool") / "pool", 4, 11)
    write_tar(folder / "00004.tar", [("a.jpg", b"broken"), ("a.txt", b"t"), ("a.json", b"{}"), ("b.jpg", b"B")])
    (folder / "00003.tar").write_bytes((folder / "00003.tar").read_bytes()[:10_000])
    for path in folder.iterdir():
        s3_client(store).put_object(Bucket=BUCKET, Key=f"pool/{path.name}", Body=path.read_bytes())
    return folder


@pytest.fixture
def network(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Run a proxy between this process and the store. Blocks are small, so that a shard has many."""
    with proxy(store) as server:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        # botocore must not retry, because its waits cannot be shortened.
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setattr(remote, "FIRST_DELAY", 0.001)
        monkeypatch.setattr(remote, "BLOCK", 6000)
        monkeypatch.setattr(remote, "BUFFER", 1700)
        S3FileSystem.clear_instance_cache()
        # Started stages get the same environment, without the credentials of the user.
        monkeypatch.setenv("HOME", str(tmp_path))
        others = {name: value for name, value in studies.ENVIRONMENT.items() if not name.startswith("AWS_")}
        aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        monkeypatch.setattr(studies, "ENVIRONMENT", {**others, **aws, "HOME": str(tmp_path)})
        yield server
        S3FileSystem.clear_instance_cache()


@pytest.fixture
def listed(local: Path, network: Proxy, tmp_path: Path) -> Path:
    write_manifest(list_shards(ADDRESS), tmp_path / "listed")
    return tmp_path / "listed"


def fail_often(network: Proxy) -> None:
    """Make about every fourth request fail, in each possible way."""
    ways = ("error", None, None, "cut", None, None, None, "reset", None, None, None, None, None)
    network.faults.clear()
    network.fault = lambda number, path: ways[number % len(ways)]


def check_that_requests_failed(network: Proxy) -> None:
    assert set(network.faults) == {"error", "cut", "reset"}
    assert network.faults.total() > 10


def test_the_manifest_has_the_sizes_and_etags_of_the_store(local: Path, listed: Path, store: str) -> None:
    objects = s3_client(store).list_objects_v2(Bucket=BUCKET, Prefix="pool/")["Contents"]
    lines = [f"s3://{BUCKET}/{o['Key']},{o['Size']},{o['ETag'].strip(chr(34))}\n" for o in objects]
    assert (listed / MANIFEST).read_text() == "".join(["address,size,etag\n", *sorted(lines)])


def test_each_sample_is_read_once_in_spite_of_failures(local: Path, listed: Path, network: Proxy) -> None:
    fail_often(network)
    for read in (lambda s, a: read_shard(s, a, caption=True, label=False), lambda s, a: read_samples(s)):
        found, expected = [], []
        accountings = (Accounting(), Accounting())
        for shard, path in zip(find_shards(listed), find_shards(local), strict=True):
            found += read(shard, accountings[0])
            expected += read(path, accountings[1])
        assert found == expected
        assert len(found) > 33
        assert accountings[0] == accountings[1]
    check_that_requests_failed(network)


PARAMETERS = EmbedParameters(batch_size=4, precision="fp32", shards_per_part=2)


def embed_into(folder: Path, shards: Path, model_folder: Path, executor: Executor = LOCAL) -> dict:
    (folder / "scratch").mkdir(parents=True)
    out, scratch = folder / "out", folder / "scratch"
    model = partial(load, model_folder)
    found = tuple(find_shards(shards))
    return embed(
        PARAMETERS,
        model,
        "e",
        found,
        out,
        scratch,
        classes=None,
        captioned=True,
        decoders=2,
        drop_limit=0.5,
        executor=executor,
    )[0]


def test_embeddings_and_models_have_the_same_bytes(local, listed, network, model_folder: Path, tmp_path: Path) -> None:
    fail_often(network)
    metrics = [embed_into(tmp_path / name, shards, model_folder) for name, shards in (("l", local), ("r", listed))]
    check_that_requests_failed(network)
    assert metrics[0] == metrics[1]
    assert metrics[0]["damaged_shards"] == 1
    assert sha256_of(tmp_path / "l" / "out") == sha256_of(tmp_path / "r" / "out")

    (tmp_path / "model.json").write_text(json.dumps(MODEL_CONFIG))
    embeddings = Embeddings(tmp_path / "l" / "out")
    keep = np.ones(embeddings.rows, np.bool_)
    for workers in (0, 1):
        models = []
        for name, folder in (("l", local), ("r", listed)):
            network.faults.clear()
            out = tmp_path / f"{name}{workers}"
            (out / "scratch").mkdir(parents=True)
            shards = kept_shards(folder, embeddings.metadata_parts(["shard", "key"]), keep)
            chosen = parameters(str(tmp_path / "model.json"))
            train(chosen, TrainResources(workers, 100), 0, shards, embeddings.rows, out / "model", out / "scratch")
            models.append(sha256_of(out / "model"))
        check_that_requests_failed(network)
        assert models[0] == models[1]


SOME_FAIL = (None, None, "cut", None, None, None, "reset", None, None, None, "error")


def test_processes_that_train_together_read_the_same_bytes(local: Path, listed: Path, network, tmp_path: Path) -> None:
    network.fault = lambda number, path: SOME_FAIL[number % len(SOME_FAIL)]
    source = yaml.safe_load((REPOSITORY / "presets" / "toy.yaml").read_text())["embedder"]
    network.faults.clear()
    models = []
    for name, pool in (("l", local), ("r", listed)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.json").write_text(json.dumps(MODEL_CONFIG))
        train = {"model": "model.json", "samples_seen": 48, "batch_size": 8, "processes": 2, "readers": 2}
        put_params(folder, embedder={**source, "train": {**source["train"], **train, "shuffle_buffer": 5}})
        finished = call(folder, "embedder", "--pool", str(pool), "--out", "embedder", "--metrics", "metrics.json")
        assert finished.returncode == 0, finished.stderr
        models.append(sha256_of(folder / "embedder"))
    assert network.faults.total() > 3
    assert models[0] == models[1]


@pytest.mark.long
def test_the_machines_of_a_ray_cluster_read_the_same_bytes(local, listed, network, model_folder, tmp_path) -> None:
    """Each machine uses the credentials and the endpoint of its own environment, and some requests fail."""
    expected = embed_into(tmp_path / "l", local, model_folder)
    with ray_cluster() as cluster:
        network.faults.clear()
        network.fault = lambda number, path: SOME_FAIL[number % len(SOME_FAIL)]
        found = embed_into(tmp_path / "r", listed, model_folder, Executor("ray", cluster.address))
    assert network.faults.total() > 0
    assert found == expected
    assert sha256_of(tmp_path / "r" / "out") == sha256_of(tmp_path / "l" / "out")


def parameters(model: str) -> TrainParameters:
    """Return parameters for one epoch by two readers, whose buffers are smaller than their shards."""
    return TrainParameters(
        model=model, budget="epochs", samples_seen=1, epochs=1.0, batch_size=8, micro_batch_size=None,
        learning_rate=0.01, weight_decay=0.1, beta1=0.9, beta2=0.98, epsilon=1e-6, warmup_fraction=0.5, crop_scale=0.9,
        precision="fp32", threads=1, processes=1, readers=2, grad_checkpointing=False, compile=False,
        shuffle_buffer=5,
    )  # fmt: skip


def test_the_embedder_trains_on_the_same_samples(local: Path, listed: Path, network: Proxy) -> None:
    fail_often(network)
    found = [(shard.shard.name, shard.keys.to_pylist()) for shard in readable_shards(listed)]
    check_that_requests_failed(network)
    assert found == [(shard.shard.name, shard.keys.to_pylist()) for shard in readable_shards(local)]


@pytest.mark.parametrize("fault", ["error", "cut", "reset"])
def test_giving_up_names_the_shard_and_writes_nothing(listed, network, model_folder, tmp_path, fault: str) -> None:
    network.fault = lambda number, path: fault if "00002.tar" in path else None
    with pytest.raises(SimgapError) as caught:
        embed_into(tmp_path / "r", listed, model_folder)
    assert str(caught.value).startswith(f"{ADDRESS}/00002.tar: could not be read in {remote.TRIES} tries (")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r" / "out").exists()
    # The first part is complete, so a second run would continue after it.
    assert [path.name for path in (tmp_path / "r" / "scratch").iterdir()] == ["part_0000"]


def test_every_block_is_requested_once(listed: Path, network: Proxy) -> None:
    for shard in find_shards(listed)[:2]:
        before = network.requests
        assert len(list(read_shard(shard, Accounting(), caption=True, label=False))) == 11
        # One more request at the start and one at the end ask for size and etag.
        assert network.requests - before == 2 + -(-shard.size // remote.BLOCK)


def test_reading_survives_a_temporary_outage(listed: Path, local: Path, network: Proxy) -> None:
    shard = find_shards(listed)[0]
    with stream(shard) as found:
        first = found.read(4000)
        after = network.requests + remote.TRIES - 1
        network.fault = lambda number, path: "reset" if number <= after else None
        assert first + found.read() == (local / "00000.tar").read_bytes()
    assert network.faults["reset"] == remote.TRIES - 1


def test_reading_survives_a_stalled_body(local: Path, listed: Path, network: Proxy, monkeypatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 0.3}})
    first = network.requests + 1
    network.fault = lambda number, path: "stall" if number in (first + 1, first + 4) else None
    with stream(find_shards(listed)[0]) as found:
        assert found.read() == (local / "00000.tar").read_bytes()
    assert network.faults["stall"] == 2


@pytest.fixture
def replaced(store: str, local: Path) -> Iterator[None]:
    """Restore the object that a test replaces."""
    yield
    s3_client(store).put_object(Bucket=BUCKET, Key="pool/00001.tar", Body=(local / "00001.tar").read_bytes())


def put_another(store: str, local: Path) -> None:
    content = bytearray((local / "00001.tar").read_bytes())
    content[-20_000] ^= 1
    s3_client(store).put_object(Bucket=BUCKET, Key="pool/00001.tar", Body=bytes(content))


@pytest.mark.usefixtures("replaced")
def test_an_object_replaced_since_it_was_listed(listed: Path, local: Path, store: str, network: Proxy) -> None:
    put_another(store, local)
    etag = find_shards(listed)[1].etag
    with pytest.raises(SimgapError, match=rf"^{ADDRESS}/00001\.tar: has \d+ bytes and the etag \w+, .*{etag}"):
        list(read_shard(find_shards(listed)[1], Accounting(), caption=True, label=False))


@pytest.mark.usefixtures("replaced")
def test_an_object_replaced_while_it_is_read(listed: Path, local: Path, store: str, network: Proxy) -> None:
    accounting = Accounting()
    samples = read_shard(find_shards(listed)[1], accounting, caption=True, label=False)
    next(samples)
    put_another(store, local)
    with pytest.raises(SimgapError, match=r"00001\.tar: has \d+ bytes and the etag"):
        list(samples)
    assert accounting.damaged_shards == 0


def test_an_empty_object_replaced_since_it_was_listed(network: Proxy, store: str, tmp_path: Path) -> None:
    s3_client(store).put_object(Bucket=BUCKET, Key="hollow/00000.tar", Body=b"")
    (shard,) = list_shards(f"s3://{BUCKET}/hollow")
    accounting = Accounting()
    assert list(read_shard(shard, accounting, caption=True, label=False)) == []
    assert accounting.damaged_shards == 1
    s3_client(store).put_object(Bucket=BUCKET, Key="hollow/00000.tar", Body=b"another")
    with pytest.raises(SimgapError, match=rf"^{shard}: has 7 bytes and the etag \w+, but its manifest says 0 and "):
        list(read_shard(shard, accounting, caption=True, label=False))


def list_by_stage(folder: Path, address: str) -> subprocess.CompletedProcess[str]:
    put_params(folder, manifest={"there": {"address": address}})
    return call(folder, "manifest", "--name", "there", "--out", "out")


def test_the_manifest_stage_survives_failures(local, listed, network: Proxy, tmp_path: Path) -> None:
    first = network.requests + 1
    network.fault = lambda number, path: "error" if number == first else None
    (tmp_path / "study").mkdir()
    finished = list_by_stage(tmp_path / "study", ADDRESS)
    assert finished.returncode == 0, finished.stderr
    assert network.faults["error"] == 1
    assert (tmp_path / "study" / "out" / MANIFEST).read_bytes() == (listed / MANIFEST).read_bytes()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://another/pool", "The specified bucket does not exist"),
        (f"s3://{BUCKET}/nothing", f"{BUCKET}/nothing"),
        ("s3://pools/empty", "holds no .tar"),
        ("s3:///pool", "is not an address; write it as s3://BUCKET/FOLDER"),
        ("nosuch://pools/pool", "is not an address that fsspec can open (Protocol not known: nosuch)"),
        ("gs://pools/pool", "needs a package that is not installed (Please install gcsfs"),
        ("s3://pools/pool/{00000..00003}.tar", "is a shard; give the folder of the shard, s3://pools/pool"),
    ],
)
def test_an_address_without_shards(network, store, tmp_path, address: str, reason: str) -> None:
    s3_client(store).put_object(Bucket=BUCKET, Key="empty/a.txt", Body=b"")
    finished = list_by_stage(tmp_path, address)
    assert finished.returncode == 1
    assert finished.stderr.replace("'", "").startswith(f"error: {address}: ")
    assert reason in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_credentials(network: Proxy, tmp_path: Path, monkeypatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delitem(studies.ENVIRONMENT, name)
    finished = list_by_stage(tmp_path, ADDRESS)
    assert finished.returncode == 1
    assert finished.stderr == (
        f"error: {ADDRESS}: cannot be read (Unable to locate credentials); check the address and the credentials\n"
    )
