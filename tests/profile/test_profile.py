from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import unit_rows

from simgap.errors import SimgapError
from simgap.profile.profile import certify, profile
from simgap.prune.prune import prune_imagenet_like
from simgap.prune.split import Split, read_keep, read_split, write_split
from simgap.similarity.columns import Similarity
from simgap.similarity.measure import measure
from simgap.similarity.parameters import SimilarityParameters


@pytest.fixture
def study(store, tmp_path):
    sets = {
        "pool": store("pool", unit_rows(120, 6, 0), parts=2),
        "reference": store("reference", unit_rows(15, 6, 1)),
        "val": store("val", unit_rows(9, 6, 2), labels=[0] * 9),
    }
    used = np.arange(9) < 6
    measure(
        SimilarityParameters(2, 50),
        sets["pool"],
        sets["reference"],
        sets["val"],
        used,
        tmp_path / "similarity" / "val",
        tmp_path / "scratch",
    )
    full = Split("full", {}, [], None, 120, 120, "all", True, sets["pool"].row_order, None)
    write_split(full, np.ones(120, bool), tmp_path / "full")
    prune_imagenet_like(tmp_path / "full", tmp_path / "similarity", ["val"], 0.0, True, tmp_path / "like")
    return sets, tmp_path


def test_profile_is_what_a_plain_scan_gives(study) -> None:
    sets, folder = study
    split = read_split(folder / "like")
    keep = read_keep(folder / "like" / "keep.npy", 120)
    benchmarks = {"val": (sets["val"], Similarity(folder / "similarity" / "val"))}
    metrics = profile(split, keep, sets["pool"], sets["reference"], benchmarks, 33, folder / "out")
    exact = sets["pool"].read().astype(np.float64) @ sets["val"].read().astype(np.float64).T
    reference = (sets["reference"].read().astype(np.float64) @ sets["val"].read().astype(np.float64).T).max(axis=0)
    kept = exact[keep].max(axis=0)
    table = pq.read_table(folder / "out" / "val.parquet")
    assert np.array_equal(table.column("similarity").to_numpy(), kept.astype(np.float32))
    assert np.array_equal(
        table.column("similarity_with_reference").to_numpy(), np.maximum(kept, reference).astype(np.float32)
    )
    assert metrics["val/certificate/queries_checked"] == 6
    assert metrics["val/certificate/violations"] == 0
    assert (kept[:6] <= reference[:6]).all()


def test_a_split_that_breaks_its_rule_is_found(study) -> None:
    sets, folder = study
    split = replace(read_split(folder / "like"), kept=120)
    benchmarks = {"val": (sets["val"], Similarity(folder / "similarity" / "val"))}
    with pytest.raises(SimgapError, match="does not follow its rule"):
        profile(split, np.ones(120, bool), sets["pool"], sets["reference"], benchmarks, 33, folder / "out")
    assert not (folder / "out").exists()


def test_without_pool_rows_the_profile_is_the_reference(study) -> None:
    sets, folder = study
    split = replace(read_split(folder / "full"), rule="random", kept=0)
    benchmarks = {"val": (sets["val"], Similarity(folder / "similarity" / "val"))}
    metrics = profile(split, np.zeros(120, bool), sets["pool"], sets["reference"], benchmarks, 33, folder / "out")
    assert metrics == {"val/gap_to_reference_mean": 0.0}
    table = pq.read_table(folder / "out" / "val.parquet")
    assert table.column("similarity").null_count == 9


def test_the_bound_is_inclusive() -> None:
    content = certify(np.array([0.5, 0.6]), np.array([0.5, 0.5]), float(np.float32(0.6 - 0.5)), "here")
    assert content["certificate/violations"] == 0
    with pytest.raises(SimgapError, match="1 of 2 queries"):
        certify(np.array([0.5, 0.6]), np.array([0.5, 0.5]), 0.09, "here")
