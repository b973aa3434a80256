from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import unit_rows
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simgap.core.errors import SimgapError
from simgap.data.annotations import Annotation
from simgap.leaks.leaks import AnnotatedCopies, annotated_copies, calibrate_threshold, find_leaks
from simgap.params.leaks import LeakParameters


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.floats(0, 0.99))
def test_the_threshold_is_the_lowest_with_few_enough_false_positives(values: list[int], share: float) -> None:
    similarity = np.array(values, np.float32) / 8
    threshold = calibrate_threshold(similarity, share)
    assert (similarity > threshold).sum() <= share * len(values)
    lower = [value for value in similarity if value < threshold]
    # Too many values exceed the next lower threshold.
    if lower:
        assert (similarity > max(lower)).sum() > int(share * len(values))


def _annotation(planted: str | None = None, source: str | None = None, key: str | None = None) -> Annotation:
    return Annotation(None, None, planted, source, key)


def test_annotated_copies_are_measured_in_every_set(store, tmp_path: Path) -> None:
    vectors = {name: unit_rows(9, 6, seed) for seed, name in enumerate(("pool", "reference", "val", "sketch"))}
    sets = {name: store(name, of_set, parts=2) for name, of_set in vectors.items()}
    assert sets["pool"].rows == 9
    annotations = {(f"{row // 5:05d}.tar", f"{row:09d}"): _annotation() for row in range(9)}
    planted = {
        1: ("near", "val", 5), 2: ("exact", "val", 3), 3: ("near", "pool", 0), 4: ("exact", "reference", 8),
        6: ("sibling", "val", 1), 7: ("near", "left-out", 1), 8: ("near", "sketch", 70),
    }  # fmt: skip
    for row, (how, source, original) in planted.items():
        annotations[f"{row // 5:05d}.tar", f"{row:09d}"] = _annotation(how, source, f"{original:09d}")
    known = annotated_copies(annotations, tmp_path / "embeddings", ["val", "sketch"])

    def product(row: int, source: str, original: int) -> np.float32:
        return np.float32(vectors["pool"][row].astype(float) @ vectors[source][original].astype(float))

    assert sorted(known.similarity["exact"]) == sorted([product(2, "val", 3), product(4, "reference", 8)])
    assert sorted(known.similarity["near"]) == sorted([product(1, "val", 5), product(3, "pool", 0)])
    assert np.flatnonzero(known.copied["val"]).tolist() == [3, 5]
    assert not known.copied["sketch"].any()
    del annotations["00001.tar", "000000006"]
    with pytest.raises(
        SimgapError, match=r"00001\.tar: 000000006 has no json with an annotation; set leaks\.threshold"
    ):
        annotated_copies(annotations, tmp_path / "embeddings", ["val", "sketch"])


def test_leaks_are_counted_at_a_calibrated_threshold() -> None:
    similarity = {"val": np.array([0.1, 0.2, 0.9, 0.5], np.float32), "sketch": np.array([0.3, 0.6, 0.95], np.float32)}
    copied = {"val": np.array([False, False, True, False]), "sketch": np.array([False, False, True])}
    known = AnnotatedCopies({"exact": np.float32([0.9, 0.95]), "near": np.float32([0.4, 0.7])}, copied)
    found = find_leaks(LeakParameters(None, 0.2), similarity, known)
    # One of the values 0.1, 0.2, 0.5, 0.3 and 0.6 may exceed the threshold.
    assert found["threshold"] == pytest.approx(0.5)
    assert found["calibrated"] is True
    assert found["false_positive_share"] == 0.2
    assert (found["recall"], found["recall/exact"], found["recall/near"]) == (0.75, 1, 0.5)
    assert (found["marked_copies"], found["marked_copies/near"], found["queries_without_marked_copy"]) == (4, 2, 5)
    assert (found["val/queries"], found["val/copied"], found["val/copied_share"], found["val/marked"]) == (
        4,
        1,
        0.25,
        1,
    )
    assert (found["sketch/copied"], found["sketch/marked"]) == (2, 1)


def test_without_a_query_that_has_no_copy_nothing_can_be_calibrated() -> None:
    similarity, copied = {"val": np.array([0.1, 0.9], np.float32)}, {"val": np.array([True, True])}
    known = AnnotatedCopies({"exact": np.float32([0.9])}, copied)
    found = find_leaks(LeakParameters(0.5, 0.2), similarity, known)
    assert (found["queries_without_marked_copy"], found["val/copied"]) == (0, 1)
    assert "false_positive_share" not in found
    with pytest.raises(SimgapError, match="or every test image has an annotated copy"):
        find_leaks(LeakParameters(None, 0.2), similarity, known)


def test_a_given_threshold_needs_no_annotations() -> None:
    similarity = {"val": np.array([0.1, 0.5, 0.9], np.float32)}
    assert find_leaks(LeakParameters(0.5, 0.01), similarity, None) == {
        "calibrated": False, "threshold": 0.5, "val/queries": 3, "val/copied": 1, "val/copied_share": 1 / 3,
    }  # fmt: skip
    none = AnnotatedCopies(
        {"exact": np.empty(0, np.float32), "near": np.empty(0, np.float32)}, {"val": np.zeros(3, bool)}
    )
    for known in (None, none):
        with pytest.raises(SimgapError, match=r"leaks\.threshold is null, [^\n]*no pool sample is annotated as a copy"):
            find_leaks(LeakParameters(None, 0.01), similarity, known)
    found = find_leaks(LeakParameters(0.5, 0.01), similarity, none)
    assert found["marked_copies"] == 0
    assert "recall" not in found


@pytest.mark.parametrize(
    ("threshold", "share", "message"), [(1.5, 0.1, "less than or equal to 1"), (None, 1.0, "less than 1")]
)
def test_parameters_out_of_range(threshold: float | None, share: float, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LeakParameters(threshold=threshold, false_positives=share)
