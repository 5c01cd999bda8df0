"""Files appear whole or not at all, and every changed byte is noticed."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

import fasthash as fh
from fasthash._storage import atomic_write, read_container, write_container
from fasthash.errors import CorruptFileError, FastHashError

ARRAYS = {
    "a": np.arange(7, dtype=np.float32),
    "b": np.zeros((0, 3), np.uint8),
    "c": np.arange(12, dtype=">i8").reshape(3, 4),
}


@pytest.fixture
def container(tmp_path):
    path = tmp_path / "x.bin"
    write_container(path, "thing", {"n": 1, "text": "é"}, ARRAYS)
    return path


def test_round_trip(container):
    meta, arrays = read_container(container, "thing")
    assert meta == {"n": 1, "text": "é"}
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize("path", ["a\0b", Path("a\0b"), Path("folder\0") / "b"])
def test_a_path_with_a_nul_is_named(path, encoder_path):
    index = fh.HammingIndex(8)
    calls = [index.save, index.load, fh.Catalog.open, lambda path: fh.Catalog.create(path, encoder_path)]
    for call in calls:
        with pytest.raises(fh.ArgumentError, match=r"^path: no file has a NUL in its name, got '"):
            call(path)


def test_every_damaged_byte_is_noticed(container):
    data = container.read_bytes()
    for i in range(len(data)):
        container.write_bytes(data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :])
        with pytest.raises(CorruptFileError, match=r"x\.bin"):
            read_container(container, "thing")


def test_every_cut_and_anything_added_is_noticed(container):
    data = container.read_bytes()
    for damaged in [*(data[:i] for i in range(len(data))), data + b"\0"]:
        container.write_bytes(damaged)
        with pytest.raises(CorruptFileError, match=r"x\.bin"):
            read_container(container, "thing")


def test_another_kind_is_refused(container):
    with pytest.raises(CorruptFileError, match="holds a thing, not a other"):
        read_container(container, "other")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FastHashError, match=r"none\.bin"):
        read_container(tmp_path / "none.bin", "thing")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with contextlib.suppress(RuntimeError), atomic_write(path) as file:
        file.write(b"new")
        raise RuntimeError("half way")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FastHashError, match="nowhere"), atomic_write(tmp_path / "nowhere" / "file"):
        pass


def test_what_is_written_by_name_is_on_the_disk_before_it_is_there(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino) or fsync(fd))
    with atomic_write(tmp_path / "file") as file:
        Path(file.name).unlink()  # as astropy does to overwrite one
        Path(file.name).write_bytes(b"another")
    assert (tmp_path / "file").read_bytes() == b"another"
    assert (tmp_path / "file").stat().st_ino in synced
