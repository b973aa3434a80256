from __future__ import annotations

from pathlib import Path

import pytest
from conftest import write_benchmark

from simgap.cli.contact_sheet import draw_contact_sheet
from simgap.core.errors import SimgapError
from simgap.data.benchmarks import load_benchmark


def test_a_benchmark_is_what_its_files_say(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "val", [0, 1], ["cat", "dog"])
    (tmp_path / "val" / "reference_classes.json").write_text("[[1, 2], 0]")
    found = load_benchmark(tmp_path / "val")
    assert found.name == "val"
    assert found.classnames == ("cat", "dog")
    assert found.templates == ("a photo of a {c}", "a {c}")
    assert found.reference_classes == ((1, 2), (0,))


def _without(name: str):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("classnames.txt"), "classnames.txt: no such file"),
        (_without("zeroshot_classification_templates.txt"), "templates.txt: no such file"),
        (_without("test/nshards.txt"), "nshards.txt: no such file"),
        (lambda folder: (folder / "test/nshards.txt").write_text("2"), "1.tar: no such shard"),
        (lambda folder: (folder / "test/nshards.txt").write_text("many"), "'many'"),
        (lambda folder: (folder / "classnames.txt").write_text("one\n"), "at least 2"),
        (lambda folder: (folder / "classnames.txt").write_text("\n"), "is empty"),
        (lambda folder: (folder / "zeroshot_classification_templates.txt").write_text("a photo"), "lacks {c}"),
        (lambda folder: (folder / "reference_classes.json").write_text("[[0]]"), "one entry for each of the 2 classes"),
        (lambda folder: (folder / "reference_classes.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "reference_classes.json").write_text("[[-1], [0]]"), "[-1]"),
        (lambda folder: (folder / "reference_classes.json").write_text('["a", "b"]'), "['a']"),
        (lambda folder: (folder / "classnames.txt").write_text("cat\n\ndog\n"), "line 2 is blank"),
        (lambda folder: (folder / "classnames.txt").write_bytes(b"caf\xe9\ndog\n"), "not UTF-8"),
        (lambda folder: (folder / "test/nshards.txt").write_text("²"), "'²'"),
    ],
)
def test_an_incomplete_benchmark_is_refused(tmp_path: Path, change, words: str) -> None:
    folder = write_benchmark(tmp_path / "val", [0, 1], ["cat", "dog"])
    change(folder)
    with pytest.raises(SimgapError) as raised:
        load_benchmark(folder)
    assert words in str(raised.value)


def test_contact_sheet_has_a_tile_for_every_class(tmp_path: Path) -> None:
    from PIL import Image

    write_benchmark(tmp_path / "b" / "val", [0, 1, 1], ["cat", "dog"])
    write_benchmark(tmp_path / "b" / "sketch", [0, 1], ["dog", "eel"])
    (tmp_path / "b" / ".r.converting").mkdir()
    draw_contact_sheet(tmp_path / "b", tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (100 + 3 * 96, 20 + 2 * 96)
    with pytest.raises(SimgapError, match="is a folder"):
        draw_contact_sheet(tmp_path / "b", tmp_path)
    with pytest.raises(SimgapError, match="holds no benchmark"):
        draw_contact_sheet(tmp_path / "nowhere", tmp_path / "sheet.png")
