from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import REPOSITORY
from dvc.repo import Repo
from hypothesis import given, settings
from hypothesis import strategies as st
from revisions import params, repository, rule_of, write_json
from studies import ENVIRONMENT, commit, run

from simgap.core.errors import SimgapError
from simgap.store.estimates import Estimate
from simgap.store.study import Study
from simgap.studies.overlap import rows
from simgap.studies.overlap.claims import Answer, claim_a, claim_b, compare_claims
from simgap.studies.overlap.rows import Overlap, compare_rows, count, overlaps
from simgap.studies.revisions import Revision

ROWS = 203
SPLITS = ("full", "sketch-pruned", "sketch-pruned-control", "sketch-pruned-matched", "reference-only")


def pack(keep: Any) -> np.ndarray:
    return np.packbits(np.array(keep, bool), bitorder="little")


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=70))
@settings(max_examples=150, deadline=None)
def test_overlaps_are_those_of_sets(found: list[tuple[bool, bool, bool, bool]]) -> None:
    fulls = [{row for row, values in enumerate(found) if values[place]} for place in (0, 1)]
    keeps = [{row for row, values in enumerate(found) if values[place] and values[place + 2]} for place in (0, 1)]

    def bits(chosen: set[int]) -> np.ndarray:
        return pack([row in chosen for row in range(len(found))])

    pair, of_full = tuple(map(bits, keeps)), tuple(map(bits, fulls))
    kept, pruned = overlaps("s", pair, of_full, len(found))
    gone = [full - keep for full, keep in zip(fulls, keeps, strict=True)]
    for overlap, (ours, theirs) in ((kept, keeps), (pruned, gone)):
        assert (overlap.first, overlap.second, overlap.both) == (len(ours), len(theirs), len(ours & theirs))
        union = len(ours | theirs)
        assert overlap.jaccard == (len(ours & theirs) / union if union else None)
    (whole,) = overlaps("full", of_full, of_full, len(found))
    assert (whole.rows, whole.first, whole.both) == ("kept", len(fulls[0]), len(fulls[0] & fulls[1]))
    assert whole.expected == pytest.approx(len(fulls[0]) * len(fulls[1]) / len(found))


@pytest.mark.parametrize(("fulls", "sizes"), [(({0, 1, 2, 3}, {1, 2, 3, 4, 5}), (2, 3)), (({0, 1}, {2, 3, 4}), (1, 2))])
def test_what_chance_gives_is_the_mean_over_all_draws(fulls: tuple[set[int], set[int]], sizes: tuple[int, int]) -> None:
    draws = [list(itertools.combinations(sorted(full), size)) for full, size in zip(fulls, sizes, strict=True)]
    both = [len(set(ours) & set(theirs)) for ours, theirs in itertools.product(*draws)]
    pair = tuple(pack([row in draw[0] for row in range(9)]) for draw in draws)
    of_full = tuple(pack([row in full for row in range(9)]) for full in fulls)
    kept, _ = overlaps("s", pair, of_full, 9)
    assert kept.expected == pytest.approx(np.mean(both))
    assert kept.by_chance == pytest.approx(np.mean(both) / (sum(sizes) - np.mean(both)))


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_bits_are_counted_in_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK_BYTES", block)
    random = np.random.default_rng(0)
    keeps = random.random((3, 805)) < 0.6
    assert count(pack(keeps[0])) == keeps[0].sum()
    assert count(*map(pack, keeps)) == keeps.all(axis=0).sum()
    assert count(np.empty(0, np.uint8)) == 0


def test_no_row_has_no_index() -> None:
    nothing = Overlap("reference-only", "kept", 0, 0, 0, 0.0)
    assert nothing.jaccard is None
    assert nothing.by_chance is None


def study_of(compared: dict[str, Any]) -> Study:
    """Return the reader of a study with this comparison, and without splits."""
    source = SimpleNamespace(read=lambda _: compared, where=lambda path: path)
    return Study(source, [], ["val", "sketch"], [0])


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.6, 0.7), "more than half"), ((0.1, 0.4), "less than half"), ((0.4, 0.6), "inconclusive")],
)
def test_answers_of_claim_a(interval: tuple[float, float], verdict: str) -> None:
    values = dict(zip(("", "/low", "/high"), (0.5, *interval), strict=True))
    study = study_of({f"s/val/gap_explained{end}": value for end, value in values.items()})
    found = claim_a(study, "s", "val")
    assert found.verdict == verdict
    assert found.estimate == Estimate(0.5, *interval, "metrics/compare/compare.json", "s/val/gap_explained")
    assert claim_a(study, "s", "sketch") == Answer(None, "undefined")


def test_answers_of_claim_b() -> None:
    compared = {"s/val/minus_full": -0.1, "s/val/minus_full/low": -0.2, "s/val/minus_full/high": 0.1}
    found = claim_b(study_of(compared | {"s/val/verdict_full": "inconclusive"}), "s", "val")
    assert found.verdict == "inconclusive"
    assert found.estimate == Estimate(-0.1, -0.2, 0.1, "metrics/compare/compare.json", "s/val/minus_full")
    assert claim_b(study_of({}), "s", "val") == Answer(None, "undefined")


Keeps = dict[str, np.ndarray]


def write_study(folder: Path, embedder: int, keys: list[str]) -> Keeps:
    """Write splits, metadata and a comparison, drawn from the embedder's seed."""
    random = np.random.default_rng(embedder)
    content = params(0.0, [0], embedder__seed=embedder)
    content["prune"]["similar"] = {f"only-{embedder}": {"benchmarks": ["val"], "join": "max", "keep": 0.5}}
    content["prune"]["dissimilar"] = {"quarter": {"benchmarks": ["val"], "join": "max", "keep": 0.25}}
    content["runs"]["quarter"] = {}
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    keeps: Keeps = {"full": random.random(len(keys)) < 0.9}
    for split in (*SPLITS[1:], "quarter", f"only-{embedder}"):
        keeps[split] = keeps["full"] & (random.random(len(keys)) < (0.0 if split == "reference-only" else 0.6))
    for split, keep in keeps.items():
        info = {"row_order": f"of embedder {embedder} {keys[-1]}", "pool_rows": len(keys)}
        write_json(folder / "data" / "splits" / split / "split.json", info)
        np.save(folder / "data" / "splits" / split / "keep.npy", pack(keep))
    metadata = folder / "data" / "embeddings" / "pool" / "metadata"
    metadata.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(np.array_split(np.array(keys), 2)):
        table = pa.table({"shard": [f"{number}.tar"] * len(part), "key": part, "caption": ["x" * embedder] * len(part)})
        pq.write_table(table, metadata / f"metadata_{number}.parquet")
    compared: dict[str, Any] = {}
    for place, middle in (("sketch-pruned/val/gap_explained", 0.9 - embedder / 2), ("quarter/val/minus_full", -0.1)):
        compared |= {place: middle, f"{place}/low": middle - 0.05, f"{place}/high": middle + 0.05}
    compared["quarter/val/verdict_full"] = "lower"
    for place in ("sketch", "val"):
        compared |= {f"quarter/{place}/verdict_full": "lower"}
    write_json(folder / "metrics" / "compare" / "compare.json", compared)
    for split in content["runs"]:
        write_json(folder / "metrics" / "prune" / f"{split}.json", rule_of(split, 0.0))
    # The command in a process of its own would take a second.
    with Repo(str(folder)) as repo:
        repo.add(str(folder / "data"))
    commit(folder)
    return keeps


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Keeps, Keeps]:
    folder = repository(tmp_path_factory.mktemp("overlap"))
    keys = [f"{row:09d}" for row in range(ROWS)]
    first = write_study(folder, 0, keys)
    run(folder, "git", "tag", "first")
    second = write_study(folder, 1, keys)
    run(folder, "git", "tag", "second")
    write_study(folder, 1, [*keys[:-2], keys[-1], keys[-2]])
    run(folder, "git", "tag", "swapped")
    write_study(folder, 0, keys[:-1])
    run(folder, "git", "tag", "fewer")
    return folder, first, second


@pytest.fixture
def here(studies: tuple[Path, Keeps, Keeps], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Revision]:
    monkeypatch.chdir(studies[0])
    return Revision


def test_splits_of_two_embedders(studies: tuple[Path, Keeps, Keeps], here: Callable[[str], Revision]) -> None:
    _, ours, theirs = studies
    found = {(overlap.split, overlap.rows): overlap for overlap in compare_rows(here("first"), here("second"))}
    shared = [*SPLITS, "quarter"]
    assert set(found) == {("full", "kept")} | {(split, rows) for split in shared[1:] for rows in ("kept", "pruned")}
    for (split, kind), overlap in found.items():
        sets = [keeps[split] if kind == "kept" else keeps["full"] & ~keeps[split] for keeps in (ours, theirs)]
        both, either = int((sets[0] & sets[1]).sum()), int((sets[0] | sets[1]).sum())
        assert (overlap.first, overlap.second, overlap.both) == (sets[0].sum(), sets[1].sum(), both)
        assert overlap.jaccard == (both / either if either else None)
    # Independent draws have as many rows in common as chance gives, within five standard deviations.
    quarter = found["quarter", "kept"]
    assert abs(quarter.both - quarter.expected) < 5 * np.sqrt(quarter.expected)
    same = list(compare_rows(here("first"), here("first")))
    assert {overlap.jaccard for overlap in same} == {1.0, None}
    assert [overlap.split for overlap in same if overlap.jaccard is None] == ["reference-only"]


def test_claims_of_two_embedders(here: Callable[[str], Revision]) -> None:
    found = {(c.claim, c.split, c.benchmark): c for c in compare_claims(here("first"), here("second"))}
    assert set(found) == {
        (claim, split, name)
        for claim, split in (("A", "sketch-pruned"), ("B", "quarter"))
        for name in ("val", "sketch")
    }
    claim = found["A", "sketch-pruned", "val"]
    assert (claim.first.verdict, claim.second.verdict, claim.agree) == ("more than half", "less than half", False)
    found_second = claim.second.estimate
    assert found_second is not None
    assert (found_second.value, found_second.low, found_second.high) == pytest.approx((0.4, 0.35, 0.45))
    assert found["A", "sketch-pruned", "sketch"].agree
    answers = found["B", "quarter", "val"].first, found["B", "quarter", "val"].second
    ours, theirs = ((replace(answer.estimate, file=""), answer.verdict) for answer in answers)
    assert ours == theirs
    assert found["B", "quarter", "sketch"].first == Answer(None, "undefined")


@pytest.mark.parametrize(("other", "rows_there"), [("swapped", ROWS), ("fewer", ROWS - 1)])
def test_other_rows_or_another_order_are_refused(here: Callable[[str], Revision], other: str, rows_there: int) -> None:
    message = rf"{other}: the pool has other rows than the pool of first \({rows_there} and {ROWS}\), or another order"
    with pytest.raises(SimgapError, match=message):
        list(compare_rows(here("first"), here(other)))


def test_the_command_prints_both_tables_and_writes_them(studies: tuple[Path, Keeps, Keeps], tmp_path: Path) -> None:
    folder, ours, theirs = studies
    command = [sys.executable, "-m", "simgap.cli", "overlap", "first", "second", "--out", str(tmp_path / "tables")]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(REPOSITORY / "src")}
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    lines = [line.split() for line in finished.stdout.splitlines()]
    assert lines[0] == ["split", "rows", "first", "second", "in", "both", "Jaccard", "by", "chance"]
    both = int((ours["quarter"] & theirs["quarter"]).sum())
    either = int((ours["quarter"] | theirs["quarter"]).sum())
    (line,) = [line for line in lines if line[:2] == ["quarter", "kept"]]
    assert line[2:6] == [str(ours["quarter"].sum()), str(theirs["quarter"].sum()), str(both), f"{both / either:.3f}"]
    texts = [" ".join(line) for line in lines]
    assert "sketch-pruned A val 90 [85, 95] more than half 40 [35, 45] less than half no" in texts
    assert "quarter B val -10.0 [-15.0, -5.0] lower -10.0 [-15.0, -5.0] lower yes" in texts
    assert finished.stdout.splitlines()[-1] == "The revisions agree on 3 of 4 claims."
    tables = {}
    for path in (tmp_path / "tables").iterdir():
        with path.open(newline="") as stream:
            tables[path.name] = list(csv.DictReader(stream))
    assert set(tables) == {"overlap.csv", "claims.csv"}
    (row,) = [row for row in tables["overlap.csv"] if (row["split"], row["rows"]) == ("quarter", "kept")]
    assert float(row["jaccard"]) == pytest.approx(both / either)
    assert [row["agree"] for row in tables["claims.csv"]] == ["0", "1", "1", "1"]


def test_an_output_that_is_nowhere_ends_in_a_line(studies: tuple[Path, Keeps, Keeps], tmp_path: Path) -> None:
    run(tmp_path, "git", "clone", "--quiet", str(studies[0]), "clone")
    clone = tmp_path / "clone"
    command = [sys.executable, "-m", "simgap.cli", "overlap", "first", "second"]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(REPOSITORY / "src")}
    finished = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: first:data/splits/full/split.json: does not exist; fetch it with")
    assert len(finished.stderr.splitlines()) == 1


def test_json_is_checked(here: Callable[[str], Revision]) -> None:
    assert json.loads(json.dumps(here("first").read("metrics/compare/compare.json")))
    with pytest.raises(SimgapError, match=r"first:params\.yaml: not JSON"):
        here("first").read("params.yaml")
