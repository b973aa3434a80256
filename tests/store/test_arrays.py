from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DAMAGES

from simgap.core.errors import SimgapError
from simgap.store.arrays import parquet_columns, read_array, read_parquet, write_array
from simgap.store.split import read_keep


@pytest.mark.parametrize("mapped", [False, True])
def test_an_array_is_read_as_it_was_written(tmp_path: Path, mapped: bool) -> None:
    path, values = tmp_path / "some" / "values.npy", np.arange(6, dtype=np.float16).reshape(3, 2)
    write_array(path, values)
    found = read_array(path, np.float32, np.float16, shape=(None, 2), mapped=mapped)
    assert found.dtype == np.float16
    assert found.tolist() == values.tolist()
    assert read_array(io.BytesIO(path.read_bytes())).tolist() == values.tolist()


@pytest.mark.parametrize("mapped", [False, True])
def test_an_array_that_is_refused(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "values.npy"
    with pytest.raises(SimgapError, match=r"values\.npy: no such file; write it again"):
        read_array(path, mapped=mapped, remedy="write it again")
    np.save(path, np.zeros((3, 2), np.float32))
    with pytest.raises(SimgapError, match=r"values\.npy: the array is float32 \[3, 2\]; it must be float16 \[\*, 2\]$"):
        read_array(path, np.float16, shape=(None, 2), mapped=mapped)
    for shape in ((3,), (2, 3), (3, 2, 1), ()):
        with pytest.raises(SimgapError, match=r"is float32 \[3, 2\]; it must be float32 \["):
            read_array(path, np.float32, shape=shape, mapped=mapped)
    whole = path.read_bytes()
    np.savez(tmp_path / "archive", np.zeros(3))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    damaged = (
        b"",
        b"no array",
        whole[:-8],
        (tmp_path / "archive.npz").read_bytes(),
        (tmp_path / "objects.npy").read_bytes(),
    )
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(SimgapError, match=r"values\.npy: the file cannot be read as a NumPy array \("):
            read_array(path, mapped=mapped)
        with pytest.raises(SimgapError, match=r"^commit abc: the file cannot be read as a NumPy array \("):
            read_array(io.BytesIO(content), name="commit abc")


def test_the_bits_of_a_split_have_one_shape(tmp_path: Path) -> None:
    path = tmp_path / "keep.npy"
    np.save(path, np.packbits([True] * 11, bitorder="little"))
    assert read_keep(path, 11).tolist() == [True] * 11
    for wrong in (
        np.uint8(3),
        np.zeros((2, 1), np.uint8),
        np.zeros(3, np.uint8),
        np.zeros(2, np.int8),
        np.zeros(11, bool),
    ):
        np.save(path, wrong)
        with pytest.raises(SimgapError, match=r"it must be uint8 \[2\]; each of the 11 pool rows needs one bit"):
            read_keep(path, 11)


def test_columns_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"a": ["x"], "b": [1], "c": [[1, 2]]}), path)
    assert parquet_columns(path) == ["a", "b", "c"]
    assert read_parquet(path, ["c", "a"]).select(["c", "a"]).to_pylist() == [{"c": [1, 2], "a": "x"}]
    assert read_parquet(path, ["a"], others=True).column_names == ["a", "b", "c"]
    assert read_parquet(path, []).num_rows == 1
    with pytest.raises(SimgapError, match=r"table\.parquet: the table has no column d; write it again$"):
        read_parquet(path, ["a", "d"], "write it again")
    with pytest.raises(SimgapError, match=r"none\.parquet: no such file; write it again$"):
        read_parquet(tmp_path / "none.parquet", [], "write it again")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_refused_in_a_line(tmp_path: Path, damage) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"key": ["some text"] * 9}), path)
    damage(path)
    with pytest.raises(
        SimgapError, match=r"^[^\n]*table\.parquet: the file cannot be read as a Parquet table \([^\n]*; embed again$"
    ):
        read_parquet(path, ["key"], "embed again")
