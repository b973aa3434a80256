"""Compare plans with numbers computed by hand, and read the formats that stages and perf write."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from conftest import REPOSITORY, write_tar
from hypothesis import given
from hypothesis import strategies as st

from simgap.cli.main import main
from simgap.core.errors import SimgapError
from simgap.core.files import sha256_of
from simgap.data.manifest import write_manifest
from simgap.data.remote import RemoteShard
from simgap.params.load import load_params
from simgap.params.schema import Params
from simgap.plan import rates
from simgap.plan.models import model_size
from simgap.plan.needs import START_SECONDS, Need, Planner
from simgap.plan.sizes import SAMPLES, SHARE_OF_FULL, Sizes, gather, queries_of
from simgap.plan.table import BYTES, COUNT, HOURS, total, with_unit

LAION = REPOSITORY / "presets" / "laion400m.yaml"
TOY = REPOSITORY / "presets" / "toy.yaml"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def changed(tmp_path: Path, preset: Path, change: Any) -> Params:
    content = yaml.safe_load(preset.read_text())
    change(content)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    return load_params(tmp_path / "params.yaml")


def plan_of(
    params: Params, root: Path, known: rates.Rates, given: dict[str, float] | None = None, devices: int = 8
) -> dict[tuple[str, str], Need]:
    planner = Planner(params, gather(params, given or {}, root), known, devices)
    return {(need.stage, need.name): need for need in planner.needs()}


def work_seconds(need: Need) -> float:
    """Return the seconds without those of starting the command."""
    assert need.seconds is not None
    return need.seconds - START_SECONDS


def source(sizes: Sizes, name: str) -> str:
    return next(source for size, _, source in sizes.table if size == name)


def one(work: str, per_second: float, flop: float = 1.0) -> rates.Rates:
    return rates.Rates({work: (rates.Rate(flop, per_second, "test"),)})


@pytest.mark.parametrize(
    ("model", "image", "text", "parameters"),
    # open_clip's docs/model_profile.csv, in 1e9 FLOP and 1e6 parameters.
    [("ViT-B-32", 8.82, 5.96, 151.28), ("ViT-B-16-plus-240", 54.76, 9.27, 208.38), ("RN50", 12.22, 5.96, 102.01)],
)
def test_a_model_s_flop_are_those_of_open_clip_s_table(
    model: str, image: float, text: float, parameters: float
) -> None:
    size = model_size(model)
    assert round(size.image_flop / 1e9, 2) == image
    assert round(size.text_flop / 1e9, 2) == text
    assert round(size.parameters / 1e6, 2) == parameters


def test_laion_400m_has_numbers_computed_by_hand(tmp_path: Path) -> None:
    needs = plan_of(load_params(LAION), tmp_path, rates.card_rates(400, 1.0).joined(one("read", 1e30)))
    # 407 million rows of 640 components in fp16, and their metadata.
    assert needs["embed", "pool"].disk_bytes == 407e6 * (640 * 2 + 80)
    assert needs["embed", "pool"].read_bytes == pytest.approx(10e12, rel=0.01)
    assert work_seconds(needs["embed", "pool"]) == pytest.approx(407e6 * 54_761_168_896 / 400e12)
    queries = {"val": 50_000, "sketch": 50_889, "r": 30_000, "a": 7_500, "v2": 10_000}
    for name, count in queries.items():
        need = needs["similarity", name]
        assert work_seconds(need) == pytest.approx(2 * (407e6 + 1_281_167) * count * 640 / 400e12)
        assert need.read_bytes == (407e6 + 1_281_167) * 640 * 2
        assert 407e6 * 12 < need.disk_bytes < 407e6 * 12.1
    # 32 epochs of full and ImageNet-Train in whole batches; checkpointing repeats the forward pass.
    steps = 32 * (203_500_000 + 1_281_167) // 33_600
    assert needs["train", "full-0"].rows == steps * 33_600
    flop = 4 * (8_817_623_040 + 5_959_540_736)
    assert work_seconds(needs["train", "full-0"]) == pytest.approx(steps * 33_600 * flop / 400e12)
    assert needs["train", "reference-only-0"].rows == 32 * 1_281_167 // 33_600 * 33_600
    assert needs["train", "nearest-100m-0"].rows == 32 * 101_281_167 // 33_600 * 33_600
    assert needs["train", "random-25m-0"].rows == needs["train", "similar-val-25m-0"].rows
    # Until there are data, the imagenet-like rule may keep everything.
    assert needs["train", "combined-control-0"].rows == needs["train", "combined-0"].rows == steps * 33_600
    # An evaluation has 17 ways in which an answer may be correct.
    assert needs["evaluate", "full-0"].disk_bytes == sum(queries.values()) * (12 + 17 / 8)
    assert {stage for stage, _ in needs} == {"embed", "embed-benchmark", "similarity", "train", "evaluate"}


def test_gpu_hours_of_a_training_are_those_of_open_clip() -> None:
    """LAION-400M took 4,600 hours of an A100 for 32 epochs: 0.11 of 312 TFLOP/s, without checkpointing."""
    size = model_size("ViT-B-32")
    known = rates.card_rates(312, 0.112)
    rate = known.find("train", rates.training_flop(size.image_flop, size.text_flop))
    assert rate is not None
    assert 407e6 * 32 / rate.per_second / 3600 == pytest.approx(4600, rel=0.01)


def test_sizes_are_counted_if_there_are_data_and_metrics(tmp_path: Path) -> None:
    params = load_params(TOY)
    pool = tmp_path / "data" / "worlds" / "toy" / "pool"
    for number in range(3):
        write_tar(pool / f"{number:05d}.tar", [("a.jpg", b"x" * 5000)])
    (tmp_path / "metrics" / "embed").mkdir(parents=True)
    (tmp_path / "metrics" / "prune").mkdir()
    (tmp_path / "metrics" / "embed" / "pool.json").write_text(json.dumps({"read": 1000, "kept": 990}))
    (tmp_path / "metrics" / "embed" / "val.json").write_text(json.dumps({"read": 70, "kept": 70}))
    (tmp_path / "metrics" / "prune" / "full.json").write_text(json.dumps({"kept": 900}))
    (tmp_path / "metrics" / "prune" / "combined.json").write_text(json.dumps({"kept": 123}))
    (tmp_path / "metrics" / "prune" / "sketch-pruned.json").write_text(json.dumps({"kept": 456}))

    foreign = gather(params, {}, tmp_path)
    assert (foreign.samples, foreign.full, foreign.kept) == (20_000, 10_000, {}), (
        "no dvc.lock says whose metrics they are"
    )
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock_of(params.pool.path)))
    sizes = gather(params, {}, tmp_path)
    assert (sizes.samples, sizes.rows, sizes.full, sizes.shards) == (1000, 990, 900, 3)
    assert sizes.sample_bytes == sum(path.stat().st_size for path in pool.iterdir()) / 1000
    assert sizes.queries == {"val": 70, **dict.fromkeys(("sketch", "r", "a", "v2", "objectnet"), 400)}
    assert source(sizes, "queries of val") == "counted"
    assert source(sizes, "queries of r") == "drawn"
    planner = Planner(params, sizes, rates.Rates())
    assert planner.kept("combined") == planner.kept("combined-control") == 123
    assert planner.kept("sketch-pruned") == planner.kept("sketch-pruned-matched") == 456
    assert planner.kept("nearest-quarter") == 225
    assert planner.kept("reference-only") == 0
    assert planner.kept("full") == 900
    assert planner.kept("r-pruned") == 900

    for path in pool.iterdir():
        path.unlink()
    write_manifest([RemoteShard(f"s3://b/{number}.tar", 7_000, "e") for number in range(5)], pool)
    remote = gather(params, {}, tmp_path)
    assert (remote.shards, remote.sample_bytes) == (5, 35.0)

    given = gather(params, {SAMPLES: 5000, SHARE_OF_FULL: 0.2, queries_of("val"): 9}, tmp_path)
    assert (given.samples, given.rows, given.full, given.queries["val"], given.kept) == (5000, 5000, 1000, 9, {})
    assert source(given, SAMPLES) == "given"
    # What was counted belongs to a pool of another size.
    larger = gather(params, {SAMPLES: 5000}, tmp_path)
    assert (larger.full, larger.shards, larger.sample_bytes) == (2500, 1, 24_600)


def lock_of(pool: str) -> dict[str, Any]:
    """Return the content of a dvc.lock whose study embedded the pool at a path."""
    embedded = {"deps": [{"path": pool}], "outs": [{"path": "metrics/embed/pool.json"}]}
    return {"stages": {"embed@pool": embedded}}


def test_imported_embeddings_are_read_not_computed(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "foreign"
    params = changed(tmp_path, LAION, lambda c: c["pool"].update(embed="data/foreign", shard_digits=5))
    known = one("import", 640e3).joined(one("embed", 1.0)).joined(one("read", 1e30))
    need = plan_of(params, tmp_path, known)["embed", "pool"]
    assert need.rows == 407e6
    assert need.read_bytes == need.disk_bytes == 407e6 * (640 * 2 + 80)
    assert work_seconds(need) == pytest.approx(407e6 / 1000)
    # A part of a million rows, as clip-retrieval writes them, and a hash of every row of the pool.
    assert 1e6 * 640 * 2 < need.memory_bytes - 9 * 407e6 < 3e9
    embedded = plan_of(load_params(LAION), tmp_path, known)["embed", "pool"]
    assert work_seconds(embedded) == pytest.approx(407e6 * 54_761_168_896)

    # A folder of other shards is embedded.
    write_tar(folder / "00000.tar", [("a.jpg", b"x")])
    assert gather(params, {}, tmp_path).imported_parts == 0
    (folder / "00000.tar").unlink()

    (folder / "img_emb").mkdir(parents=True)
    for number, rows in enumerate((300, 200)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", np.zeros((rows, 640), np.float16))
    sizes = gather(params, {}, tmp_path)
    assert (sizes.samples, sizes.rows, sizes.imported_parts, source(sizes, "pool rows")) == (500, 500, 2, "counted")
    (tmp_path / "metrics" / "embed").mkdir(parents=True)
    (tmp_path / "metrics" / "embed" / "pool.json").write_text(json.dumps({"read": 500, "kept": 490}))
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock_of("data/foreign")))
    assert gather(params, {}, tmp_path).rows == 490
    (folder / "img_emb" / "img_emb_1.npy").write_bytes(b"cut")
    with pytest.raises(SimgapError, match=r"img_emb_1.npy: not a NumPy array"):
        gather(params, {}, tmp_path)


def stage_instances(params: Path) -> set[tuple[str, str]]:
    """Return each stage of dvc.yaml for a params file with its instance, which is empty for a single stage."""
    content = yaml.safe_load(params.read_text())

    def resolved(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = content
        for key in value.removeprefix("${").removesuffix("}").split("."):
            found = found[key]
        return found

    instances = set()
    for stage, entry in yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"].items():
        if "matrix" in entry:
            names = ["-".join(map(str, keys)) for keys in itertools.product(*map(resolved, entry["matrix"].values()))]
        else:
            names = list(resolved(entry["foreach"])) if "foreach" in entry else [""]
        instances |= {(stage, name) for name in names}
    return instances


PLANNED = ("embedder", "embed", "embed-benchmark", "similarity", "train", "evaluate")


@pytest.mark.parametrize("params", [REPOSITORY / "params.yaml", *sorted((REPOSITORY / "presets").glob("*.yaml"))])
def test_every_instance_of_a_planned_stage_has_a_need(params: Path, tmp_path: Path) -> None:
    expected = {(stage, name or stage) for stage, name in stage_instances(params) if stage in PLANNED}
    loaded = load_params(params)
    if loaded.embedder.train is None:
        expected.remove(("embedder", "embedder"))
    needs = plan_of(loaded, tmp_path, rates.assumed(2).joined(rates.card_rates(100, 0.5)), devices=1)
    assert set(needs) == expected
    assert all(need.seconds is not None and need.disk_bytes for need in needs.values())


def test_without_deduplication_full_is_the_whole_pool(tmp_path: Path) -> None:
    params = changed(tmp_path, TOY, lambda c: c["deduplicate"].update(eps=None))
    assert gather(params, {SAMPLES: 1000}, tmp_path / "nowhere").full == 1000


def test_a_rate_is_that_of_the_nearest_model_scaled_by_flop() -> None:
    known = rates.Rates({"embed": (rates.Rate(1e6, 500.0, "small"), rates.Rate(1e9, 8.0, "large"))})
    found = known.find("embed", 4e9)
    assert found is not None
    assert (found.per_second, found.source) == (2.0, "large, scaled by 0.25")
    assert known.find("embed", 1e6) == rates.Rate(1e6, 500.0, "small")
    assert known.find("train", 1e6) is None


PROGRAMS: dict[str, dict[str, Any]] = {
    "similarity": {
        "rows": 100, "queries": 50, "dim": 8, "neighbours": 3, "data": "uniform",
        "medians": {"bare product, numpy": 0.1, "engine cpu, fp32": 2.0, "FAISS, three searches": 1.0},
    },
    "embed": {"decoders": 2, "models": {"toy": {"images_per_second": {"simgap": 300.0, "clip-retrieval": 1.0}}}},
    "train": {"flop_per_sample": 4e9, "workers": 1, "threads": 1, "medians": {"simgap": 12.0, "open_clip_train": 9.0}},
}  # fmt: skip


def test_what_perf_measured_becomes_rates(tmp_path: Path) -> None:
    paths = []
    for name, content in PROGRAMS.items():
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps({"machine": {}, **content}))
    found = {work: [(r.flop, r.per_second) for r in known] for work, known in rates.measured(paths).by_work.items()}
    assert found["similarity"] == [(1, 2 * 100 * 50 * 8 / 2.0)]
    assert found["embed"] == [(model_size("presets/models/toy.json").image_flop, 300)]
    assert found["train"] == [(4e9, 12)]


def test_the_rate_of_a_card_comes_before_that_of_processors(tmp_path: Path) -> None:
    content = PROGRAMS["similarity"]
    medians = {**content["medians"], "GPU: engine": 0.5, "GPU: bare product, fp16": 0.2}
    (tmp_path / "a.json").write_text(json.dumps({**content, "medians": medians}))
    assert rates.measured([tmp_path / "a.json"]).by_work["similarity"][0].per_second == 2 * 100 * 50 * 8 / 0.5


def test_logs_of_a_study_become_rates(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(TOY.read_text())
    for folder in ("metrics/embed", "metrics/train", "logs"):
        (tmp_path / folder).mkdir(parents=True)
    logs = {
        "embed/pool": {"images_per_second": 100.0, "seconds": 30.0},
        "embed/val": {"images_per_second": 40.0, "seconds": 10.0},
        "train/full-0": {"samples_per_second": 5.0, "seconds": 1.0},
    }
    for name, log in logs.items():
        metrics = tmp_path / "metrics" / f"{name}.json"
        metrics.write_text(json.dumps({"of": name}))
        (tmp_path / "logs" / f"{metrics.stem}-{sha256_of(metrics)[:16]}.json").write_text(json.dumps(log))
    (tmp_path / "metrics" / "embed" / "r.json").write_text("{}")
    toy = model_size("presets/models/toy.json")
    found = rates.logged(tmp_path).by_work
    assert found["embed"][0].per_second == (100 * 30 + 40 * 10) / 40
    assert found["train"][0].per_second == 5

    # A stage whose work was done before, an import, and a run with another model.
    more = {
        "embed/pool": {"rows_per_second": 1e5, "seconds": 2.0},
        "embed/val": {"images_per_second": 0.0, "seconds": 0.1},
        "train/reference-only-0": {"samples_per_second": 2.0, "seconds": 3.0},
    }
    for name, log in more.items():
        metrics = tmp_path / "metrics" / f"{name}.json"
        metrics.write_text(json.dumps({"of": name}))
        (tmp_path / "logs" / f"{metrics.stem}-{sha256_of(metrics)[:16]}.json").write_text(json.dumps(log))
    large = {"model": "ViT-B-32", "grad_checkpointing": True}
    changed(tmp_path, TOY, lambda c: c["runs"].update({"reference-only": large}))
    found = rates.logged(tmp_path).by_work
    assert "embed" not in found
    assert found["import"] == (rates.Rate(128.0, 1e5, "logs of 1 stage"),)
    assert {(rate.flop, rate.per_second) for rate in found["train"]} == {
        (rates.training_flop(toy.image_flop, toy.text_flop), 5.0),
        (4 * (8_817_623_040 + 5_959_540_736), 2.0),
    }
    for log in (tmp_path / "logs").iterdir():
        log.unlink()
    with pytest.raises(SimgapError, match=r"--study: .* has no logs"):
        rates.logged(tmp_path)


def test_the_rates_of_a_card_replace_measured_ones() -> None:
    known = rates.assumed(4).joined(one("embed", 7.0)).joined(rates.card_rates(1, 0.5))
    assert known.card
    found = known.find("embed", 1e6)
    assert found is not None
    assert found.per_second == pytest.approx(0.5e12 / 1e6)
    assert known.by_work["decode"][0].per_second == 4 * 250


def test_decoding_or_reading_may_take_longer_than_a_card(tmp_path: Path) -> None:
    params, card = load_params(LAION), rates.card_rates(1e9, 1.0)
    decoding = plan_of(params, tmp_path, one("decode", 1000.0).joined(card))["embed", "pool"]
    assert (decoding.bound, work_seconds(decoding)) == ("decode", 407e6 / 1000)
    reading = plan_of(params, tmp_path, one("read", 1e9).joined(card))["embed", "pool"]
    assert (reading.bound, work_seconds(reading)) == ("read", 407e6 * 24_600 / 1e9)


def test_several_micro_batches_take_a_second_forward_pass(tmp_path: Path) -> None:
    def seconds(**train: Any) -> float:
        params = changed(tmp_path, TOY, lambda c: c["train"].update(train))
        return work_seconds(plan_of(params, tmp_path / "nowhere", one("train", 1.0, 1.0))["train", "full-0"])

    whole = seconds()
    assert seconds(micro_batch_size=16) == pytest.approx(whole * 4 / 3)
    assert seconds(micro_batch_size=16, processes=2) == pytest.approx(whole)
    assert seconds(micro_batch_size=16, grad_checkpointing=True) == pytest.approx(whole * 5 / 3)


def need(seconds: float | None, *, shared: bool = True) -> Need:
    return Need("s", "n", 10, 1, 2, 3, 4, seconds, "work", shared, ("work", "test"))


def test_a_ray_cluster_shares_the_parts_of_a_stage(tmp_path: Path) -> None:
    known = rates.assumed(2).joined(rates.card_rates(100, 0.5))

    def shared(params: Params) -> set[str]:
        return {stage for (stage, _), need in plan_of(params, tmp_path, known).items() if need.shared}

    assert shared(load_params(LAION)) == {"train"}
    by_ray = changed(tmp_path, LAION, lambda c: c["resources"].update(executor="ray"))
    assert shared(by_ray) == {"train", "embed", "embed-benchmark", "similarity"}


def test_several_devices_do_not_start_faster() -> None:
    assert need(108.0).seconds_on(10) == 18.0
    assert need(108.0, shared=False).seconds_on(10) == 108.0
    assert need(None).seconds_on(10) is None


def test_totals_are_sums_and_memory_is_the_largest() -> None:
    needs = [need(3608.0 + 3600.0), need(3600.0, shared=False), need(None)]
    found = total("s", needs, 4, 2.5)
    assert (found.instances, found.rows, found.disk_bytes, found.scratch_bytes, found.read_bytes) == (3, 30, 3, 2, 9)
    assert (found.memory_bytes, found.device_hours) == (4, (7208 + 3600) / 3600)
    assert found.hours == (8 + 1800 + 3600) / 3600
    assert found.cost == found.hours * 4 * 2.5
    assert total("s", [need(None)], 4, 2.5).hours is None
    assert total("s", [need(8.0)], 4, None).cost is None


@given(st.floats(0.001, 1e18))
def test_a_formatted_number_is_close_to_the_number(value: float) -> None:
    factors = {unit: factor for factor, unit in BYTES}
    text = with_unit(value, BYTES)
    number, unit = text.split(" ")
    assert math.isclose(float(number) * factors[f" {unit}"], value, rel_tol=0.006, abs_tol=0.005)


def test_units() -> None:
    assert with_unit(260.4e9, BYTES) == "260 GB"
    assert with_unit(1e12, BYTES) == "1.00 TB"
    assert with_unit(0, BYTES) == "0"
    assert with_unit(407e6, COUNT) == "407e6"
    assert with_unit(1.5, HOURS) == "1.50 h"
    assert with_unit(90 / 3600, HOURS) == "1.50 min"
    assert with_unit(9 / 3600, HOURS) == "9.00 s"


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["plan", *arguments])
    return result.exit_code, result.output


def test_the_command_s_table_and_json_agree(tmp_path: Path) -> None:
    options = ("--card-tflops", "312", "--utilisation", "0.4", "--gpus", "8", "--price", "2")
    code, printed = call("laion400m", *options, "--json", str(tmp_path / "plan.json"))
    assert code == 0, printed
    content = json.loads((tmp_path / "plan.json").read_text())
    lines = {line.split("  ")[0]: line for line in printed.split("\n\n")[0].splitlines()}
    for stage in content["stages"]:
        assert with_unit(stage["disk_bytes"], BYTES) in lines[stage["stage"]]
        if stage["cost"] is not None:
            assert f"{stage['cost']:,.0f}" in lines[stage["stage"]]
            assert stage["cost"] == pytest.approx(stage["hours"] * 16)
    instances = content["instances"]
    everything = next(stage for stage in content["stages"] if stage["stage"] == "all")
    assert everything["read_bytes"] == pytest.approx(sum(one["read_bytes"] for one in instances))
    assert {one["name"] for one in instances if one["stage"] == "train"} == {
        f"{run}-0" for run in load_params(LAION).runs
    }
    assert any(line.split("  ")[0] == "pool samples" and "assumed, LAION-400M" in line for line in printed.splitlines())


def hours_of(stage: str, *arguments: str) -> tuple[float, str]:
    """Return the hours of a stage on all devices, and the command's output."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "plan.json"
        code, printed = call(*arguments, "--json", str(out))
        assert code == 0, printed
        (found,) = [one for one in json.loads(out.read_text())["stages"] if one["stage"] == stage]
    return found["hours"], printed


def test_a_note_says_that_cards_and_processes_differ() -> None:
    card = ("--card-tflops", "100")
    by_params, printed = hours_of("train", "laion400m", *card)
    assert "hours on 8" in printed
    assert "train.processes, which" not in printed
    assert (by_params, printed) == hours_of("train", "laion400m", *card, "--gpus", "8")
    half, printed = hours_of("train", "laion400m", *card, "--gpus", "4")
    assert half == pytest.approx(2 * by_params, rel=0.001)
    (line,) = [line for line in printed.splitlines() if line.startswith("Training runs ")]
    assert "4 processes, one on each card. Set train.processes, which is 8, to 4." in line
    code, printed = call("laion400m", *card, "--gpus", "9")
    assert code == 1
    assert "train.batch_size is 33600; it must be a multiple of 33597: 9 processes" in printed
    # A measured rate is that of a whole machine.
    assert "train.processes, which" not in call("laion400m", "--gpus", "2")[1]


def test_a_note_names_the_stages_that_run_on_one_device() -> None:
    alone, printed = hours_of("embed", "laion400m", "--card-tflops", "100")
    (line,) = [line for line in printed.splitlines() if line.startswith("On one device")]
    assert line.endswith(": embed, embed-benchmark, similarity, evaluate.")
    assert hours_of("embed", "laion400m", "--card-tflops", "100", "--gpus", "1")[0] == alone
    assert "On one device" not in call("laion400m", "--card-tflops", "100", "--gpus", "1")[1]


def test_a_note_names_splits_that_are_larger_than_full() -> None:
    code, printed = call("laion400m", "--pool-samples", "60000000", "--full-share", "0.75")
    assert code == 0, printed
    (note,) = [
        line for line in printed.splitlines() if line.startswith("These splits should keep more rows than full has")
    ]
    named = note.split(": ")[1].split(", ")
    assert "nearest-val-50m" in named
    assert "similar-val-50m" in named
    assert not {"nearest-val-40m", "similar-val-25m", "random-100m", "combined-control"} & set(named)
    assert "more rows than full has" not in call("laion400m")[1]


def test_a_study_without_rates_has_sizes() -> None:
    code, printed = call(str(TOY), "--pool-samples", "1000")
    assert code == 0, printed
    train = next(line for line in printed.splitlines() if line.startswith("train "))
    assert train.split()[-5:] == ["-", "-", "-", "no", "rate"]
    assert any(line.split() == ["pool", "samples", "1,000", "given"] for line in printed.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nosuch",), ("PRESET is 'nosuch'", "laion400m")),
        (("nosuch.yaml",), ("nosuch.yaml", "no such file")),
        (("toy", "--gpus", "0"), ("--gpus is 0; it must be between 1 and 1e+15",)),
        (("toy", "--gpus", "9" * 400), ("--gpus is 999", "between 1 and 1e+15")),
        (("toy", "--cores", "9" * 400), ("--cores is 999", "between 1 and 1e+15")),
        (("toy", "--price", "inf"), ("--price is inf", "between 0 and 1e+15")),
        (("toy", "--pool-samples", "9" * 400), ("--pool-samples is 999", "between 1 and 1e+15")),
        (("toy", "--card-tflops", "1e300"), ("--card-tflops is 1e+300", "and 1e+15")),
        (("toy", "--card-tflops", "1e-300"), ("--card-tflops is 1e-300", "between 1e-15 and")),
        (("toy", "--card-tflops", "1", "--utilisation", "nan"), ("--utilisation is nan", "and 1")),
        (("toy", "--price", "-1"), ("--price is -1.0", "between 0 and")),
        (("toy", "--cores", "0"), ("--cores is 0", "between 1 and")),
        (("toy", "--card-tflops", "0"), ("--card-tflops is 0.0", "between 1e-15 and")),
        (("toy", "--card-tflops", "1", "--utilisation", "40"), ("--utilisation is 40.0", "and 1")),
        (("toy", "--pool-samples", "0"), ("--pool-samples is 0", "between 1 and 1e+15")),
        (("toy", "--sample-bytes", "nan"), ("--sample-bytes is nan", "between 1 and")),
        (("toy", "--full-share", "2"), ("--full-share is 2.0", "and 1")),
        (("toy", "--queries", "vla", "3"), ("--queries names 'vla'", "val, sketch")),
        (("toy", "--queries", "val", "0"), ("--queries val is 0", "between 1 and")),
        (("toy", "--rates", "README.md"), ("README.md", "not JSON")),
        (("toy", "--rates", "presets/models/toy.json"), ("--rates: presets/models/toy.json", "perf.similarity")),
        (("toy", "--study", "docs"), ("docs/params.yaml", "no such file")),
    ],
)
def test_bad_input_ends_with_one_line(arguments: tuple[str, ...], said: tuple[str, ...]) -> None:
    code, printed = call(*arguments)
    assert code == 1
    (line,) = printed.splitlines()
    assert line.startswith("error: ")
    for part in said:
        assert part in line


DAMAGED: dict[str, tuple[str, Any, str]] = {
    "medians": ("similarity", lambda c: c.update(medians=None), "medians is None"),
    "no engine": ("similarity", lambda c: c.update(medians={"FAISS": 1.0}), "medians names no engine"),
    "at once": (
        "similarity",
        lambda c: c["medians"].update({"engine cpu, fp32": 0.0}),
        "medians.engine cpu, fp32 is 0.0",
    ),
    "queries": ("similarity", lambda c: c.update(queries=10**400), "queries is 1000"),
    "a model": ("embed", lambda c: c.update(models={"ViT-X": {}}), "models.ViT-X is no model"),
    "images": ("embed", lambda c: c["models"]["toy"].update(images_per_second={"simgap": -3.0}), "simgap is -3.0"),
    "no simgap": (
        "embed",
        lambda c: c["models"]["toy"].update(images_per_second=[1]),
        "images_per_second.simgap is missing",
    ),
    "samples": ("train", lambda c: c["medians"].update(simgap=math.inf), "medians.simgap is inf"),
    "text": ("train", lambda c: c["medians"].update(simgap="12"), "medians.simgap is '12'"),
    "flop": ("train", lambda c: c.pop("flop_per_sample"), "flop_per_sample is missing"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_of_perf_ends_with_one_line_that_names_file_and_key(case: str, tmp_path: Path) -> None:
    name, change, said = DAMAGED[case]
    content = json.loads(json.dumps(PROGRAMS[name]))
    change(content)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))
    code, printed = call("toy", "--rates", str(file))
    assert code == 1
    (line,) = printed.splitlines()
    assert line.startswith(f"error: --rates: {file}: ")
    assert said in line


def finished_study(folder: Path) -> None:
    """Write the metrics, logs and dvc.lock of a toy study that a plan reads."""
    for name in ("metrics/embed", "metrics/prune", "metrics/train", "logs"):
        (folder / name).mkdir(parents=True)
    (folder / "params.yaml").write_text(TOY.read_text())
    (folder / "presets").symlink_to(REPOSITORY / "presets")
    (folder / "metrics" / "embed" / "pool.json").write_text(json.dumps({"read": 1000, "kept": 990}))
    (folder / "metrics" / "prune" / "full.json").write_text(json.dumps({"kept": 900}))
    (folder / "metrics" / "prune" / "combined.json").write_text(json.dumps({"kept": 123}))
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock_of("data/worlds/toy/pool")))
    log = {"images_per_second": 100.0, "seconds": 30.0}
    metrics = folder / "metrics" / "embed" / "pool.json"
    (folder / "logs" / f"pool-{sha256_of(metrics)[:16]}.json").write_text(json.dumps(log))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics/embed/pool.json", "[]", "read is missing"),
        ("metrics/embed/pool.json", '{"kept": 990}', "read is missing"),
        ("metrics/embed/pool.json", '{"read": 0, "kept": 0}', "read is 0; it must be an integer between 1 and"),
        ("metrics/embed/pool.json", '{"read": "many", "kept": 1}', "read is 'many'"),
        ("metrics/embed/pool.json", '{"read": 1e3, "kept": 1}', "read is 1000.0"),
        ("metrics/embed/pool.json", f'{{"read": {10**400}, "kept": 1}}', "read is 1000"),
        ("metrics/embed/pool.json", '{"read"', "not JSON"),
        ("metrics/prune/full.json", '{"kept": -3}', "kept is -3"),
        ("metrics/prune/combined.json", '{"kept": NaN}', "kept is nan"),
        ("dvc.lock", "stages:\n<<<<<<< HEAD\n  a: b", "is not DVC's lock file"),
        ("LOG", "{}", "images_per_second or rows_per_second or samples_per_second is missing"),
        ("LOG", '{"images_per_second": -1.0, "seconds": 3.0}', "images_per_second is -1.0"),
        ("LOG", '{"images_per_second": 1.0}', "seconds is missing"),
        ("LOG", '{"images_per_second": 1.0, "seconds": 0}', "seconds is 0"),
    ],
)
def test_damaged_metrics_and_logs_end_with_one_line_that_names_file_and_key(
    file: str, content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert call("--study", ".")[0] == 0
    (named,) = (tmp_path / "logs").iterdir() if file == "LOG" else [tmp_path / file]
    named.write_text(content)
    code, printed = call("--study", ".")
    assert code == 1, printed
    (line,) = printed.splitlines()
    assert line.startswith("error: ")
    assert named.name in line
    assert said in line


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["similarity"].update(neighbours=10**400),
        lambda c: c["train"].update(samples_seen=10**400),
        lambda c: c["runs"]["full"].update(samples_seen=10**400),
    ],
)
def test_a_params_file_with_a_huge_number_ends_with_one_line(change: Any, tmp_path: Path) -> None:
    changed(tmp_path, TOY, change)
    code, printed = call(str(tmp_path / "params.yaml"))
    assert code == 1, printed
    assert printed == f"error: {tmp_path / 'params.yaml'}: a number is too large to plan with; use smaller numbers\n"


def test_a_folder_is_not_replaced_by_the_json(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    code, printed = call("toy", "--json", str(tmp_path))
    assert code == 2
    assert "is a directory" in printed
    assert (tmp_path / "kept").read_text() == "kept"
