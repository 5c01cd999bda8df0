"""Bytes by their place: the same from memory and from the disk, and no file that changes meanwhile."""

import hashlib
import os

import bad_files
import numpy as np
import pytest

from fasthash._source import CHUNK, File, Memory, chunks, digest
from fasthash.errors import ReadError
from fasthash.io import open_image


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(np.random.default_rng(0).bytes(2 * CHUNK + 77))
    return path


def test_memory_and_disk_give_the_same(path):
    data = path.read_bytes()
    for source in (Memory(data), File(os.fspath(path))):
        assert len(source) == len(data)
        for start, stop in ((0, 9), (100, 100), (len(data) - 5, len(data) + 5), (len(data) + 1, len(data) + 9), (9, 3)):
            assert source.read(start, stop) == data[start:stop]
            assert source.read(start, stop, np.empty(100, np.uint8)) == data[start:stop]
        assert b"".join(chunks(source)) == data
        assert b"".join(chunks(source, 5, CHUNK + 9)) == data[5 : CHUNK + 9]
        assert digest(source) == hashlib.blake2b(data, digest_size=16).hexdigest()


def test_a_file_that_changes_is_refused(path):
    source = File(os.fspath(path))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ReadError, match="changed while it was read"):
        source.read(0, 9)
    path.unlink()
    with pytest.raises(ReadError, match="cannot read: No such file"):
        source.read(0, 9)
    with pytest.raises(ReadError, match="cannot read: No such file"):
        File(os.fspath(path))


def test_an_image_whose_file_is_gone_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "sun.fits"
    path.write_bytes(bad_files.plain())
    image = open_image(path)
    path.unlink()
    with pytest.raises(ReadError, match=r"sun\.fits: cannot read"):
        image.pixels  # noqa: B018
