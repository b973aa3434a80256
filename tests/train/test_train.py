from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import MODEL_CONFIG, UNBUILDABLE, write_pool
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file

from simgap.clip.config import read_model_config
from simgap.clip.model import WEIGHTS_FILE, load
from simgap.core.errors import SimgapError
from simgap.params.resources import TrainResources
from simgap.params.train import TrainParameters
from simgap.train import train as module
from simgap.train.checkpoint import TrainingState
from simgap.train.data import MicroBatches, Reader, TrainingShard, balance_shards, kept_shards, readable_shards
from simgap.train.process import Process
from simgap.train.split_data import training_key
from simgap.train.step import ContrastiveStep
from simgap.train.train import build, count_steps, learning_rate, micro_batches, train


def parameters(model: str, **changes) -> TrainParameters:
    values = {
        "model": model, "budget": "samples_seen", "samples_seen": 48, "epochs": 2.0, "batch_size": 8,
        "learning_rate": 1e-3, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6, "warmup_fraction": 0.2,
        "crop_scale": 0.8, "precision": "fp32", "threads": 1, "shuffle_buffer": 100,
        "micro_batch_size": None, "processes": 1, "readers": 1, "grad_checkpointing": False, "compile": False,
    }  # fmt: skip
    return TrainParameters(**{**values, **changes})


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "model.json").write_text(json.dumps(MODEL_CONFIG))
    return str(tmp_path / "model.json")


@pytest.fixture
def shards(tmp_path: Path) -> list[TrainingShard]:
    return readable_shards(write_pool(tmp_path / "pool", 3, 7))


RESOURCES = TrainResources(workers=0, checkpoint_steps=2)


def run(
    chosen: TrainParameters,
    shards: list[TrainingShard],
    folder: Path,
    seed: int = 0,
    resources: TrainResources = RESOURCES,
) -> dict:
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    metrics, rates = train(chosen, resources, seed, shards, 21, folder / "model", folder / "scratch")
    assert all(rate > 0 for rate in rates.values())
    return metrics


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / WEIGHTS_FILE)


def test_equal_inputs_give_equal_bytes_and_the_seed_matters(config: str, shards, tmp_path: Path) -> None:
    metrics = [run(parameters(config), shards, tmp_path / name) for name in ("a", "b")]
    other = run(parameters(config), shards, tmp_path / "c", seed=1)
    assert metrics[0] == metrics[1] != other
    files = [(tmp_path / name / "model" / WEIGHTS_FILE).read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]
    assert metrics[0]["steps"] == 6
    assert metrics[0]["samples_seen"] == 48
    assert metrics[0]["epochs"] == 48 / 21
    assert load(tmp_path / "a" / "model").dim == 16


@pytest.mark.parametrize(("workers", "checkpoint_steps"), [(0, 2), (2, 2), (2, 3)])
def test_a_killed_training_resumes_with_the_same_weights(
    config, shards, tmp_path, monkeypatch, workers, checkpoint_steps
) -> None:
    chosen, resources = parameters(config), TrainResources(workers, checkpoint_steps)
    run(chosen, shards, tmp_path / "whole", resources=resources)
    real = module.learning_rate

    def killed(step, steps, chosen):
        if step == 5:
            raise KeyboardInterrupt
        return real(step, steps, chosen)

    monkeypatch.setattr(module, "learning_rate", killed)
    with pytest.raises(KeyboardInterrupt):
        run(chosen, shards, tmp_path / "cut", resources=resources)
    assert not (tmp_path / "cut" / "model").exists()
    monkeypatch.setattr(module, "learning_rate", real)
    run(chosen, shards, tmp_path / "cut", resources=resources)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_model_with_random_layers_resumes_as_well(tmp_path, shards, monkeypatch) -> None:
    """Its random numbers do not depend on the process that augments the images."""
    vision = {**MODEL_CONFIG["model_cfg"]["vision_cfg"], "patch_dropout": 0.5}
    content = {**MODEL_CONFIG, "model_cfg": {**MODEL_CONFIG["model_cfg"], "vision_cfg": vision}}
    (tmp_path / "model.json").write_text(json.dumps(content))
    for workers in (0, 1):
        test_a_killed_training_resumes_with_the_same_weights(
            str(tmp_path / "model.json"), shards, tmp_path / str(workers), monkeypatch, workers, 2
        )
    inside, beside = (weights(tmp_path / str(workers) / "whole") for workers in (0, 1))
    assert all(torch.equal(inside[name], beside[name]) for name in inside)


def test_a_checkpoint_that_changed_on_the_disk_is_refused(config, shards, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "a" / "scratch"
    folder.mkdir(parents=True)
    clip, _ = build(read_model_config(config), 0, tmp_path)
    TrainingState(clip, torch.optim.AdamW(clip.parameters()), [1.0]).save(folder)
    whole = (folder / "checkpoint.pt").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    directory = bytearray(whole)
    directory[whole.rindex(b"PK\x01\x02") + 30] ^= 1
    for damaged in (bytes(flipped), bytes(directory), whole[: len(whole) // 2], b""):
        (folder / "checkpoint.pt").write_bytes(damaged)
        with pytest.raises(SimgapError, match=r"checkpoint\.pt: the checkpoint is damaged; remove it"):
            run(parameters(config), shards, tmp_path / "a")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_lost_samples_since_it_was_embedded(config, shards, tmp_path, workers: int) -> None:
    path = shards[1].shard
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SimgapError, match=r"00001\.tar: lacks \d of the 7 samples to read") as caught:
        run(parameters(config), shards, tmp_path / "a", resources=TrainResources(workers, 2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_broke_since_it_was_embedded(config, shards, tmp_path, workers: int) -> None:
    path = shards[1].shard
    with tarfile.open(path) as tar:
        member = next(member for member in tar if not member.name.endswith((".txt", ".json")))
        content = bytearray(path.read_bytes())
        content[member.offset_data : member.offset_data + member.size] = bytes(member.size)
    path.write_bytes(content)
    with pytest.raises(SimgapError, match=r"00001\.tar: sample 000010000: broken_image"):
        run(parameters(config), shards, tmp_path / "a", resources=TrainResources(workers, 2))


def test_a_label_without_a_name_in_training(tmp_path: Path) -> None:
    folder = write_pool(tmp_path / "reference", 1, 4, labels=True)
    rows = pa.table({"shard": ["00000.tar"] * 4, "key": [f"00000{i:04d}" for i in range(4)]})
    (shard,) = kept_shards(folder, [(0, rows)], np.ones(4, bool), ("cat",))
    with pytest.raises(SimgapError, match=r"00000\.tar: 000000001: label 1 is outside"):
        list(shard.samples())


def test_a_checkpoint_is_written_after_every_epoch(config, shards, tmp_path, monkeypatch) -> None:
    saved = []
    monkeypatch.setattr(TrainingState, "save", lambda self, folder: saved.append(len(self.losses)))
    run(parameters(config), shards, tmp_path / "a", resources=TrainResources(0, 100))
    # Epochs of 21 samples end in the third and in the sixth step. After the sixth, the last, the model is saved instead.
    assert saved == [3]


@pytest.mark.parametrize("changes", [{"micro_batch_size": 4}, {"micro_batch_size": 2}, {"grad_checkpointing": True}])
def test_micro_batches_and_checkpointed_activations_change_only_rounding(config, shards, tmp_path, changes) -> None:
    whole = run(parameters(config, learning_rate=1e-4), shards, tmp_path / "whole")
    other = run(parameters(config, learning_rate=1e-4, **changes), shards, tmp_path / "other")
    assert other["loss"] != whole["loss"] or "grad_checkpointing" in changes
    for (_, loss), (_, expected) in zip(other["loss"], whole["loss"], strict=True):
        assert loss == pytest.approx(expected, abs=1e-4)
    for name, weight in weights(tmp_path / "whole").items():
        assert torch.allclose(weight, weights(tmp_path / "other")[name], atol=1e-4), name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_changes_only_rounding(config, shards, tmp_path) -> None:
    plain = run(parameters(config, learning_rate=1e-4), shards, tmp_path / "plain")
    compiled = run(parameters(config, learning_rate=1e-4, compile=True), shards, tmp_path / "compiled")
    # Equal losses would mean that nothing was compiled.
    assert compiled["loss"] != plain["loss"]
    for (_, loss), (_, expected) in zip(compiled["loss"], plain["loss"], strict=True):
        assert loss == pytest.approx(expected, abs=1e-5)
    assert weights(tmp_path / "plain").keys() == weights(tmp_path / "compiled").keys()


@pytest.mark.parametrize("micro_batch_size", [8, 4, 2])
def test_the_gradient_is_that_of_the_whole_batch(config, tmp_path, micro_batch_size: int) -> None:
    clip, tokenizer = build(read_model_config(config), 0, tmp_path)
    random = torch.Generator().manual_seed(0)
    images, words = torch.rand(8, 3, 16, 16, generator=random), tokenizer([f"word {i}" for i in range(8)])
    image, text, scale = clip(images, words)
    logits = scale * image @ text.T
    naive = sum(torch.nn.functional.cross_entropy(rows, torch.arange(8)) for rows in (logits, logits.T)) / 2
    expected = torch.autograd.grad(naive, list(clip.parameters()))
    alone = Process(0, 1, torch.device("cpu"))
    batches = list(zip(images.split(micro_batch_size), words.split(micro_batch_size), strict=True))
    loss = ContrastiveStep(clip, alone, "fp32").backward(batches)
    assert float(loss) == pytest.approx(naive.item(), abs=1e-5)
    for (name, parameter), gradient in zip(clip.named_parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6, rtol=1e-3), name


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(config, shards, tmp_path) -> None:
    """The same global batches are divided among two processes that torchrun starts, connected by Gloo."""
    chosen = parameters(config, learning_rate=1e-4, micro_batch_size=2, readers=2)
    alone = run(chosen, shards, tmp_path / "alone")
    program = tmp_path / "program.py"
    program.write_text(TOGETHER)
    (tmp_path / "together" / "scratch").mkdir(parents=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    options = [str(tmp_path / "together"), str(tmp_path / "pool"), json.dumps(asdict(chosen))]
    subprocess.run([*command, *options], check=True, timeout=240)
    together = json.loads((tmp_path / "together" / "metrics.json").read_text())
    for (_, loss), (_, expected) in zip(together["loss"], alone["loss"], strict=True):
        assert loss == pytest.approx(expected, abs=1e-4)
    for name, weight in weights(tmp_path / "alone").items():
        assert torch.allclose(weight, weights(tmp_path / "together")[name], atol=1e-4), name


TOGETHER = """
import json, sys
from pathlib import Path
from simgap.train.data import readable_shards
from simgap.params.resources import TrainResources
from simgap.params.train import TrainParameters
from simgap.train.process import join
from simgap.train.train import train

folder, pool, parameters = Path(sys.argv[1]), Path(sys.argv[2]), TrainParameters(**json.loads(sys.argv[3]))
with join() as process:
    assert process.world_size == 2
    resources = TrainResources(workers=0, checkpoint_steps=2)
    content, _ = train(parameters, resources, 0, readable_shards(pool), 21, folder / "model", folder / "scratch", process)
    if process.writes:
        (folder / "metrics.json").write_text(json.dumps(content))
"""


def test_a_batch_that_cannot_be_divided_is_refused(config) -> None:
    with pytest.raises(SimgapError, match=r"train\.batch_size is 8; .*3 processes"):
        micro_batches(parameters(config), 3)
    for changes in ({"processes": 3}, {"processes": 9}, {"processes": 2, "micro_batch_size": 8}):
        with pytest.raises(ValidationError, match=r"batch_size is 8; it must be a multiple"):
            parameters(config, **changes)


def test_training_lowers_the_loss(config, shards, tmp_path) -> None:
    metrics = run(parameters(config, samples_seen=800, learning_rate=3e-3), shards, tmp_path / "a")
    assert metrics["loss_final"] < 0.5 * metrics["loss"][0][1]


def test_budgets(config: str) -> None:
    assert count_steps(parameters(config), 1000) == 6
    assert count_steps(parameters(config, budget="epochs"), 40) == 10
    assert count_steps(parameters(config, budget="epochs", epochs=0.01), 40) == 1


def test_learning_rate_warms_up_and_decays(config: str) -> None:
    rates = [learning_rate(step, 100, parameters(config)) for step in range(100)]
    assert rates[0] == pytest.approx(1e-3 / 20)
    assert max(rates) == rates[19] == rates[20] == pytest.approx(1e-3)
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[-1] < 1e-5


def test_nothing_to_train_on(config: str, tmp_path: Path) -> None:
    with pytest.raises(SimgapError, match="nothing to train on"):
        run(parameters(config), [], tmp_path / "a")


def test_a_loss_that_is_not_finite_ends_training(config, shards, tmp_path) -> None:
    with pytest.raises(SimgapError, match="learning_rate"):
        run(parameters(config, learning_rate=1e30, warmup_fraction=0.0, samples_seen=400), shards, tmp_path / "a")
    assert not (tmp_path / "a" / "model").exists()


def test_a_gradient_that_is_not_finite_ends_training_in_its_step(config, shards, tmp_path, monkeypatch) -> None:
    """This includes the last step, whose loss is finite and which no other step follows."""
    real = ContrastiveStep.backward
    steps = []

    def broken(self, batches):
        loss = real(self, batches)
        steps.append(loss)
        if len(steps) == 6:
            next(iter(self.clip.parameters())).grad.fill_(float("nan"))
        return loss

    monkeypatch.setattr(ContrastiveStep, "backward", broken)
    with pytest.raises(SimgapError, match=r"at step 5 .*norm is nan"):
        run(parameters(config), shards, tmp_path / "a")
    assert not (tmp_path / "a" / "model").exists()
    assert (tmp_path / "a" / "scratch" / "checkpoint.pt").exists()


def test_weights_that_are_not_finite_are_never_saved(config, shards, tmp_path) -> None:
    with pytest.raises(SimgapError, match=r"is not finite after step 0; lower train\.learning_rate"):
        run(parameters(config, learning_rate=1e300, warmup_fraction=0.0, samples_seen=8), shards, tmp_path / "a")
    assert not (tmp_path / "a" / "model").exists()


def test_parameters_that_change_no_result_are_not_in_the_cache_key(config: str) -> None:
    first = training_key(parameters(config))
    assert training_key(parameters(config, processes=2)) == first
    assert training_key(parameters(config, readers=2)) != first
    changed = {**MODEL_CONFIG, "preprocess_cfg": {**MODEL_CONFIG["preprocess_cfg"], "mean": [0.4, 0.4, 0.4]}}
    Path(config).write_text(json.dumps(changed))
    assert training_key(parameters(config)) != first


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget", "hours"),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("threads", 0),
        ("micro_batch_size", 3),
        ("crop_scale", 1.2),
        ("samples_seen", 7),
    ],
)
def test_parameters_out_of_range(config: str, field: str, value) -> None:
    with pytest.raises(ValidationError, match=field):
        parameters(config, **{field: value})


@pytest.mark.parametrize(("tower", "keys", "words"), UNBUILDABLE)
def test_a_config_that_open_clip_cannot_build_is_refused_in_one_line(
    config, shards, tmp_path, tower, keys, words
) -> None:
    changed = copy.deepcopy(MODEL_CONFIG)
    changed["model_cfg"][tower].update(keys)
    Path(config).write_text(json.dumps(changed))
    with pytest.raises(SimgapError) as raised:
        run(parameters(config), shards, tmp_path / "a")
    assert str(raised.value).startswith(f"{config}: open_clip cannot build this model (")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


class Recorder:
    """A tokenizer whose tokens are the numbers among the words of a caption."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[int(word) if word.isdigit() else 0 for word in text.split()] for text in texts])


def stream(
    shards, buffer=1000, seed=0, done=0, readers=1, rank=0, world_size=1, micro_batch=4, block=None
) -> MicroBatches:
    return MicroBatches(
        shards,
        lambda picture: torch.rand(1),
        Recorder(),
        seed=seed,
        buffer=buffer,
        micro_batch=micro_batch,
        block=block or micro_batch,
        readers=readers,
        rank=rank,
        world_size=world_size,
        done=done,
    )


def texts(batches, count: int) -> list[tuple[int, ...]]:
    """Return the captions of the first micro-batches, sample by sample."""
    return [tuple(text.tolist()) for _, tokens in islice(batches, count) for text in tokens]


def assert_same(found: list, expected: list) -> None:
    assert len(found) == len(expected)
    for (image, text), (other, again) in zip(found, expected, strict=True):
        assert torch.equal(image, other)
        assert torch.equal(text, again)


@pytest.mark.parametrize("buffer", [1, 5, 1000])
def test_every_epoch_has_every_kept_sample_once_in_a_new_order(tmp_path: Path, buffer: int) -> None:
    pool = write_pool(tmp_path / "pool", 3, 7)
    rows = pa.table(
        {
            "shard": [f"{s:05d}.tar" for s in range(3) for _ in range(7)],
            "key": [f"{s:05d}{i:04d}" for s in range(3) for i in range(7)],
        }
    )
    keep = np.ones(21, bool)
    keep[[0, 8, 9, 14, 15, 16, 17, 18, 19, 20]] = False
    shards = kept_shards(pool, [(0, rows[:10]), (10, rows[10:])], keep)
    assert [shard.shard.name for shard in shards] == ["00000.tar", "00001.tar"]
    tokens = texts(stream(shards, buffer, micro_batch=1), 33)
    expected = sorted((0, index, 0, shard) for shard in range(2) for index in range(7) if keep[shard * 7 + index])
    epochs = [tokens[start : start + 11] for start in (0, 11, 22)]
    for epoch in epochs:
        assert sorted(epoch) == expected
    assert epochs[0] != epochs[1]
    assert epochs[1] != epochs[2]


@pytest.mark.parametrize("readers", [1, 2, 3, 7])
def test_a_stream_that_starts_later_skips_the_first_batches(shards, readers: int) -> None:
    whole = list(islice(stream(shards, 5, readers=readers), 10))
    assert_same(list(islice(stream(shards, 5, readers=readers, done=3), 7)), whole[3:])


@pytest.mark.parametrize("readers", [1, 2, 3])
@pytest.mark.parametrize(("world_size", "workers", "done"), [(1, 1, 0), (1, 2, 3), (2, 0, 0), (3, 2, 1)])
def test_batches_are_the_same_for_any_number_of_processes_and_workers(
    shards, readers: int, world_size: int, workers: int, done: int
) -> None:
    whole = list(islice(stream(shards, 5, readers=readers), 12))
    for rank in range(world_size):
        batches = stream(shards, 5, readers=readers, rank=rank, world_size=world_size, done=done)
        loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=workers)
        expected = whole[rank::world_size][done:]
        assert_same(list(islice(loader, len(expected))), expected)


@pytest.mark.parametrize("readers", [1, 2, 3])
@pytest.mark.parametrize("world_size", [2, 4])
def test_a_batch_without_micro_batches_is_the_same_for_any_number_of_processes(
    shards, readers: int, world_size: int
) -> None:
    """Without a micro-batch size, a process takes its share of every batch, and the block is the batch."""
    whole = [text for _, batch in islice(stream(shards, 5, readers=readers, micro_batch=8), 6) for text in batch]
    share = 8 // world_size
    for rank in range(world_size):
        batches = stream(shards, 5, readers=readers, micro_batch=share, block=8, rank=rank, world_size=world_size)
        for step, (_, batch) in enumerate(islice(batches, 6)):
            expected = whole[step * 8 + rank * share : step * 8 + (rank + 1) * share]
            assert torch.equal(batch, torch.stack(expected))


@settings(deadline=None, max_examples=100)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5), buffer=st.integers(1, 20), start=st.integers(0, 60),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_a_reader_that_starts_later_gives_the_same_samples(
    sizes: list[int], buffer: int, start: int, seed: int
) -> None:
    shards = [
        Drawn(Path(f"{number:05d}.tar"), pa.array(map(str, range(size))), None) for number, size in enumerate(sizes)
    ]
    whole = list(islice(Reader(shards, 0, seed, buffer).stream(0), start + 20))
    assert list(islice(Reader(shards, 0, seed, buffer).stream(start), 20)) == whole[start:]
    total = sum(sizes)
    for epoch in range(len(whole) // total):
        assert len(set(whole[epoch * total : (epoch + 1) * total])) == total


def test_the_epochs_before_a_start_are_not_read(monkeypatch) -> None:
    shards = [Drawn(Path(f"{number:05d}.tar"), pa.array(map(str, range(4))), None) for number in range(3)]
    read = []
    monkeypatch.setattr(
        Drawn, "samples", lambda self: read.append(self.shard) or iter([(self.shard, k) for k in range(4)])
    )
    next(Reader(shards, 0, 0, 2).stream(12 * 1000))
    assert len(read) == 1


class Drawn(TrainingShard):
    """A shard without a file, whose samples are pairs of its name and a key."""

    def samples(self):
        return ((self.shard.name, key) for key in self.keys.to_pylist())


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=20), readers=st.integers(1, 8))
def test_readers_get_about_equal_numbers_of_samples(sizes: list[int], readers: int) -> None:
    shards = [Drawn(Path(f"{number:05d}.tar"), pa.array(["x"] * size), None) for number, size in enumerate(sizes)]
    balanced = balance_shards(shards, readers)
    assert sorted(shard.shard for of_reader in balanced for shard in of_reader) == [shard.shard for shard in shards]
    assert all([shard.shard for shard in part] == sorted(shard.shard for shard in part) for part in balanced)
    assert len(balanced) == min(readers, len(shards))
    held = [sum(len(shard.keys) for shard in of_reader) for of_reader in balanced]
    # Three lower bounds of the optimum: the mean, the largest shard, and two shards if there are more shards than readers.
    assert max(held) <= 4 / 3 * max(
        sum(sizes) / len(balanced), max(sizes), sum(sorted(sizes)[-len(balanced) - 1 :][:2])
    )


def test_every_reader_sees_its_own_shards_once_an_epoch(tmp_path: Path) -> None:
    """Two readers have different numbers of samples; each starts its next epoch without waiting for the other."""
    shards = readable_shards(write_pool(tmp_path / "pool", 3, 4))
    seen = texts(stream(shards, readers=2, micro_batch=2), 16)
    first = [text for number, text in enumerate(seen) if number // 2 % 2 == 0]
    second = [text for number, text in enumerate(seen) if number // 2 % 2 == 1]
    assert sorted(first[:8]) == sorted(first[8:16])
    assert len(set(first[:8])) == 8
    for start in range(0, 16, 4):
        assert len(set(second[start : start + 4])) == 4
    assert set(first).isdisjoint(second)


def test_reference_samples_are_captioned_by_class(tmp_path: Path) -> None:
    folder = write_pool(tmp_path / "reference", 1, 4, labels=True)
    rows = pa.table({"shard": ["00000.tar"] * 4, "key": [f"00000{i:04d}" for i in range(4)]})
    (shard,) = kept_shards(folder, [(0, rows)], np.ones(4, bool), ("cat", "dog"))
    assert [s.caption for s in shard.samples()] == [f"a photo of a {name}" for name in ("cat", "dog", "cat", "dog")]


def test_a_missing_shard(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 1, 2)
    rows = pa.table({"shard": ["00007.tar"], "key": ["x"]})
    with pytest.raises(SimgapError, match=r"pool: has no shard '00007\.tar'"):
        kept_shards(pool, [(0, rows)], np.ones(1, bool))
