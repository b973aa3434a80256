"""Users' own test sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import jpeg
from hypothesis import given
from hypothesis import strategies as st
from trees import convert, refused, write_tree, written

from simgap.data.benchmarks import load_benchmark
from simgap.data.convert.image_set import natural_order


@given(st.lists(st.integers(0, 10**20), min_size=1))
def test_numbers_in_names_count_as_numbers(numbers: list[int]) -> None:
    names = sorted((f"img{number}.jpg" for number in numbers), key=natural_order)
    assert names == [f"img{number}.jpg" for number in sorted(numbers)]


@given(st.lists(st.text(), unique=True), st.randoms())
def test_one_order_of_any_names(names: list[str], random) -> None:
    shuffled = random.sample(names, len(names))
    assert sorted(names, key=natural_order) == sorted(shuffled, key=natural_order)


def test_a_folder_a_class_in_natural_order(tmp_path: Path) -> None:
    files = {
        "10/a.jpg": jpeg(0),
        "2/b10.JPG": jpeg(1),
        "2/b9.Jpeg": jpeg(2),
        "grey_wolf/c.jpg": jpeg(3),
        "README.txt": b"read me",
        ".cache/d.jpg": jpeg(4),
        "2/._b9.jpeg": b"\0",
        "2/Thumbs.db": b"\0",
    }
    tree = write_tree(tmp_path / "tree", files)
    result = convert("image-folder", tree, tmp_path / "out")
    assert result.output == f"{tmp_path / 'out'}: 4 images of 3 classes; 4 other files or folders ignored\n"
    benchmark = load_benchmark(tmp_path / "out")
    assert benchmark.classnames == ("2", "10", "grey wolf")
    assert benchmark.templates == ("a photo of a {c}",)
    assert benchmark.reference_classes is None
    assert written(tmp_path / "out") == [(0, jpeg(2)), (0, jpeg(1)), (1, jpeg(0)), (2, jpeg(3))]


def test_folders_within_a_class_folder_are_the_class_s_too(tmp_path: Path) -> None:
    """Subfolders belong to the class, as in ImageFolder of torchvision. Files of a folder come before its subfolders."""
    files = {
        "cat/z.jpg": jpeg(0),
        "cat/session10/a.jpg": jpeg(1),
        "cat/session2/b.jpg": jpeg(2),
        "cat/session2/deeper/c.PNG": jpeg(3),
        "cat/session2/notes.txt": b"",
        "cat/.thumbnails/z.jpg": jpeg(0),
        "dog/only/below.jpg": jpeg(4),
        "dog/empty/README": b"",
    }
    tree = write_tree(tmp_path / "tree", files)
    result = convert("image-folder", tree, tmp_path / "out")
    assert result.output == f"{tmp_path / 'out'}: 5 images of 2 classes; 3 other files or folders ignored\n"
    assert load_benchmark(tmp_path / "out").classnames == ("cat", "dog")
    assert written(tmp_path / "out") == [(0, jpeg(0)), (0, jpeg(2)), (0, jpeg(3)), (0, jpeg(1)), (1, jpeg(4))]


def test_linked_folders_are_followed_and_circles_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a/1.jpg": jpeg(0), "b/1.jpg": jpeg(1)})
    write_tree(tmp_path / "elsewhere", {"more/2.jpg": jpeg(2)})
    (tree / "b" / "linked").symlink_to(tmp_path / "elsewhere")
    convert("image-folder", tree, tmp_path / "out")
    assert written(tmp_path / "out") == [(0, jpeg(0)), (1, jpeg(1)), (1, jpeg(2))]
    (tmp_path / "elsewhere" / "back").symlink_to(tree / "b")
    assert "back: is a link to" in refused("image-folder", tree, tmp_path / "other")


def test_templates_of_one_s_own(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a/1.jpg": jpeg(0), "b/1.jpg": jpeg(1)})
    (tmp_path / "templates.txt").write_text("a sketch of a {c}\n{c}\n")
    convert("image-folder", tree, tmp_path / "out", "--templates", tmp_path / "templates.txt")
    assert load_benchmark(tmp_path / "out").templates == ("a sketch of a {c}", "{c}")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a/1.jpg": b""}, "tree: has 1 classes; a benchmark needs at least 2"),
        ({"a/1.jpg": b"", "b/1.gif": b""}, "tree/b: holds no image (jpg, jpeg, png, webp)"),
        ({"a/1.jpg": b"", "_/1.jpg": b""}, "'' is not a class name"),
        ({"a/1.jpg": b"", "b\nc/1.jpg": b""}, "'b\\nc' is not a class name"),
        ({"a_b/1.jpg": b"", "a b/1.jpg": b""}, "two classes have the name 'a b'"),
        ({"a/1.jpg": b"", "a_/1.jpg": b""}, "two classes have the name 'a'"),
    ],
)
def test_a_tree_that_is_none(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    tree = write_tree(tmp_path / "tree", files)
    assert words in refused("image-folder", tree, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_an_output_that_is_taken_or_lies_in_the_tree(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a/1.jpg": jpeg(0), "b/1.jpg": jpeg(1)})
    assert "does not exist yet" in refused("image-folder", tree, tree / "new")
    for taken in (tree, tree / "a"):
        result = convert("image-folder", tree, taken)
        assert result.exit_code == 1
        assert result.stderr == f"error: {taken}: exists or lies in {tree}; name a folder that does not exist yet\n"
    assert len(list(tree.rglob("*.jpg"))) == 2
    assert "no such folder" in refused("image-folder", tmp_path / "nowhere", tmp_path / "out")


IMAGES = {"images/z.png": jpeg(0), "images/y.JPG": jpeg(1), "x.jpg": jpeg(2)}


def write_csv(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    write_tree(folder, IMAGES)
    (folder / "test.csv").write_text(text, encoding=encoding)
    return folder / "test.csv"


def test_a_csv_of_names_in_its_own_order(tmp_path: Path) -> None:
    rows = 'size,path,classname\n1,images/z.png,"käse, alt"\n2,./x.jpg,apple\n3, images/y.JPG,apple \n'
    file = write_csv(tmp_path, rows, encoding="utf-8-sig")
    assert convert("csv", file, tmp_path / "out").exit_code == 0
    assert load_benchmark(tmp_path / "out").classnames == ("apple", "käse, alt")
    assert written(tmp_path / "out") == [(1, jpeg(0)), (0, jpeg(2)), (0, jpeg(1))]


def test_a_csv_of_labels_with_a_list_of_names(tmp_path: Path) -> None:
    file = write_csv(tmp_path, "path,label\nx.jpg,2\nimages/z.png,0\n")
    (tmp_path / "names.txt").write_text("cat\ndog\neel\n")
    assert convert("csv", file, tmp_path / "out", "--classnames", tmp_path / "names.txt").exit_code == 0
    assert load_benchmark(tmp_path / "out").classnames == ("cat", "dog", "eel")
    assert written(tmp_path / "out") == [(2, jpeg(2)), (0, jpeg(0))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "test.csv: has the columns ; it should have path and label, or path and classname"),
        ("file,label\nx.jpg,0\n", "has the columns file, label"),
        ("path,label,classname\nx.jpg,0,cat\n", "has the columns path, label, classname"),
        ("path,label\n", "test.csv: lists no image"),
        ("path,label\nx.jpg\n", "line 2 has missing or extra fields; it should have 2"),
        ("path,label\nx.jpg,0,1\n", "line 2 has missing or extra fields; it should have 2"),
        ("path,label\nx.jpg,0\nimages/z.png,3\n", "line 3: '3' should be a label from 0 to 2"),
        ("path,label\nx.jpg,²\n", "'²' should be a label"),
        ("path,label\nx.jpg,cat\n", "'cat' should be a label"),
        ("path,label\nw.jpg,0\n", "line 2: 'w.jpg' is not an image file"),
        ("path,label\ntest.csv,0\n", "'test.csv' is not an image file"),
        ("path,classname\nx.jpg,fox\n", "line 2: 'fox' is not in"),
    ],
)
def test_a_csv_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    file = write_csv(tmp_path, text)
    (tmp_path / "names.txt").write_text("cat\ndog\neel\n")
    assert words in refused("csv", file, tmp_path / "out", "--classnames", tmp_path / "names.txt")


def test_a_csv_without_what_it_needs(tmp_path: Path) -> None:
    file = write_csv(tmp_path, "path,label\nx.jpg,0\n")
    assert "give --classnames a file with one class name a line" in refused("csv", file, tmp_path / "out")
    assert "no such file" in refused("csv", tmp_path / "none.csv", tmp_path / "out")
    file.write_bytes(b"path,label\nx\xe9.jpg,0\n")
    assert "cannot be read as CSV" in refused("csv", file, tmp_path / "out")
