from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import unit_rows, write_tar

from simgap.core.errors import SimgapError
from simgap.data.annotations import Annotation, read_annotations
from simgap.ground_truth.score import duplicate_groups, pruned_shares, rank1_recall, rank_of_copies, score_deduplication
from simgap.prune.composition import groups_of_rows
from simgap.store.split import Split, write_split

PLAIN = Annotation("photo", "cat", None, None, None)


def test_rank_of_copies_equals_a_plain_count(store) -> None:
    vectors, queries = unit_rows(90, 5, 0), unit_rows(7, 5, 1)
    pool = store("pool", vectors, parts=2)
    copies = np.random.default_rng(0).integers(0, 90, 7)
    own = np.array([-1, 3, 50, -1, 89, 0, -1])
    exact = queries.astype(np.float64) @ vectors.astype(np.float64).T
    expected = [sum(exact[q, row] > exact[q, copies[q]] for row in range(90) if row != own[q]) for q in range(7)]
    assert rank_of_copies(pool, queries, copies, own).tolist() == expected


def test_recall_counts_copies_of_the_study_s_own_benchmarks(store, tmp_path: Path) -> None:
    store("val", np.eye(4, dtype=np.float16)[:2])
    pool = store("pool", np.eye(4, dtype=np.float16))
    annotations = [
        Annotation("photo", "cat", "exact", "val", "000000000"),
        PLAIN,
        Annotation("photo", "cat", "near", "val", "000000001"),
        Annotation("sketch", "cat", "exact", "sketch", "000000000"),
    ]
    found = rank1_recall(annotations, pool, tmp_path / "embeddings", ["val"])
    assert found == {"rank1_recall/exact": 1.0, "rank1_recall/near": 0.0, "rank1_recall/copies": 0.5}


def test_precision_and_recall_of_deduplication(store) -> None:
    vectors = np.eye(6, dtype=np.float16)
    vectors[3] = vectors[0]
    vectors[4] = vectors[1]
    annotations = [
        PLAIN,
        PLAIN,
        PLAIN,
        Annotation("photo", "cat", "exact", "pool", "000000000"),
        PLAIN,
        Annotation("photo", "cat", "near", "pool", "000000002"),
    ]
    pool = store("pool", vectors)
    group = duplicate_groups(annotations, [f"{row:09d}" for row in range(6)])
    assert group.tolist() == [0, 1, 2, 0, 4, 2]
    metrics = score_deduplication(pool, group, np.eye(1, 6, dtype=np.float16), [0.5])
    # Rows 3 and 4 are dropped; rows 3 and 5 are the true duplicates.
    assert metrics == {
        "deduplication/true_duplicates": 2,
        "deduplication/eps_0.5/dropped": 2,
        "deduplication/eps_0.5/precision": 0.5,
        "deduplication/eps_0.5/recall": 0.5,
    }


def test_pruned_shares_of_a_split(tmp_path: Path) -> None:
    annotations = [
        PLAIN,
        Annotation("sketch", "cat", "exact", "sketch", "1"),
        Annotation("sketch", None, "near", "sketch", "2"),
        Annotation("photo", "dog", "exact", "val", "1"),
    ]
    keep = np.array([True, False, True, False])
    write_split(Split("imagenet-like", {}, ["sketch"], 0.0, 2, 4, "", True, "x", None), keep, tmp_path / "s")
    rule_queries = {"sketch": {"1"}, "val": set()}
    assert pruned_shares(annotations, tmp_path / "s", rule_queries) == {
        "s/pruned_share/style/photo": 0.5,
        "s/pruned_share/style/sketch": 0.5,
        "s/pruned_share/class/cat": 0.5,
        "s/pruned_share/class/dog": 1.0,
        "s/pruned_share/class/none": 0.0,
        "s/pruned_share/planted/exact": 1.0,
        "s/pruned_share/planted_held_out/near": 0.0,
        "s/domains_removed": "none",
    }
    no_sketch = np.array([True, False, False, True])
    write_split(Split("imagenet-like", {}, ["sketch"], 0.0, 2, 4, "", True, "x", None), no_sketch, tmp_path / "t")
    assert pruned_shares(annotations, tmp_path / "t", rule_queries)["t/domains_removed"] == "sketch"


def test_annotations_of_both_formats(tmp_path: Path) -> None:
    toy = {"key": "a", "class": "cat", "style": "photo", "planted": "near", "copy_of": "val/0001"}
    photo = {"source": "PACS/sketch/dog/x.png", "duplicate_of": None}
    copied = {"source": "PACS/photo/dog/x.jpg", "duplicate_of": "b"}
    other = {"source": "cifar10/train/ship/1.jpg", "duplicate_of": None}
    members = [
        (f"{key}.json", json.dumps(content).encode())
        for key, content in zip("abcd", (toy, photo, copied, other), strict=True)
    ]
    write_tar(tmp_path / "0.tar", members)
    found = read_annotations(tmp_path)
    assert found["0.tar", "a"] == Annotation("photo", "cat", "near", "val", "0001")
    assert found["0.tar", "b"] == Annotation("sketch", "dog", None, None, None)
    assert found["0.tar", "c"] == Annotation("photo", "dog", "near", "pool", "b")
    assert found["0.tar", "d"] == Annotation("off_topic", None, None, None, None)
    write_tar(tmp_path / "1.tar", [("e.json", b"{}")])
    with pytest.raises(SimgapError, match="holds no readable annotation"):
        read_annotations(tmp_path)


TOY = {"class": "cat", "style": "photo", "planted": None, "copy_of": None}
PACS = {"source": "PACS/photo/dog/x.jpg", "duplicate_of": None}


@pytest.mark.parametrize(
    ("annotation", "field", "value"),
    [
        (TOY, "class", ["cat"]),
        (TOY, "class", {"name": "cat"}),
        (TOY, "style", 7),
        (TOY, "planted", True),
        (TOY, "copy_of", ["val/1"]),
        (TOY, "style", "half a pair \ud83d"),
        (PACS, "source", "PACS/photo/\udc00/x.jpg"),
        (PACS, "source", ["PACS", "photo"]),
        (PACS, "duplicate_of", 3),
    ],
)
def test_an_annotation_that_is_not_text_is_refused_in_a_line(
    tmp_path: Path, annotation: dict, field: str, value: object
) -> None:
    write_tar(tmp_path / "00000.tar", [("a.json", json.dumps(annotation).encode())])
    assert len(read_annotations(tmp_path)) == 1
    write_tar(tmp_path / "00000.tar", [("a.json", json.dumps(annotation | {field: value}).encode())])
    with pytest.raises(SimgapError) as raised:
        read_annotations(tmp_path)
    assert str(raised.value).endswith(f"00000.tar: a.json: {field} is {value!r}; it should be text or null")
    str(raised.value).encode()


def test_an_annotation_nested_without_end_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", [("a.json", b'{"planted": ' + b"[" * 100_000)])
    with pytest.raises(SimgapError, match="holds no readable annotation"):
        read_annotations(tmp_path)


def _annotated_pool(folder: Path, shards: list[list[dict[str, object]]]) -> Path:
    """Write shards of samples in the row order of the fixture `store`."""
    row = 0
    for number, samples in enumerate(shards):
        members = []
        for sample in samples:
            content = {"planted": None, "copy_of": None, **sample}
            members.append((f"{row:09d}.json", json.dumps(content).encode()))
            row += 1
        write_tar(folder / f"{number:05d}.tar", members)
    return folder


@pytest.mark.parametrize("match", ["class", "style"])
def test_rows_are_grouped_by_class_or_style(store, tmp_path: Path, match: str) -> None:
    random = np.random.default_rng(0)
    # Parts have unequal numbers of rows and one shard each; off-topic rows have no class.
    samples = [
        {"class": random.choice(["cat", "dog", None]), "style": str(random.choice(["photo", "art"]))} for _ in range(23)
    ]
    parts = [list(part) for part in np.array_split(np.array(samples, object), 3)]
    pool = _annotated_pool(tmp_path / "pool", parts)
    groups = groups_of_rows(pool, store("pool", unit_rows(23, 4, 0), parts=3), match)
    assert groups.dtype == np.int32
    names = [sample[match] for sample in samples]
    for one in range(23):
        for other in range(23):
            assert (groups[one] == groups[other]) == (names[one] == names[other])


def test_pools_that_cannot_be_matched_are_refused_in_a_line(store, tmp_path: Path) -> None:
    pool = store("pool", unit_rows(4, 4, 0), parts=2)
    nothing = [[{"class": None, "style": "photo"}] * 2] * 2
    with pytest.raises(SimgapError, match=r"no sample has a class in its annotation; leave prune\.matched empty"):
        groups_of_rows(_annotated_pool(tmp_path / "off-topic", nothing), pool, "class")
    fewer = _annotated_pool(tmp_path / "fewer", [nothing[0], nothing[0][:1]])
    with pytest.raises(
        SimgapError, match=r"00001\.tar: 000000003 has no json with an annotation; leave prune\.matched empty"
    ):
        groups_of_rows(fewer, pool, "style")
    with pytest.raises(SimgapError, match=r"has no shard '00001\.tar'"):
        groups_of_rows(_annotated_pool(tmp_path / "one", nothing[:1]), pool, "style")
    # This is what img2dataset writes for LAION.
    write_tar(
        tmp_path / "laion" / "00000.tar", [("000000000.json", b'{"caption": "a cat", "url": "https://x.example"}')]
    )
    with pytest.raises(SimgapError, match=r"000000000\.json holds no readable annotation; .*prune\.matched empty"):
        groups_of_rows(tmp_path / "laion", pool, "class")
