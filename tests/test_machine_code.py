"""Compiled code: there from the first call, made anew where damaged, done without where it cannot be kept."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fasthash as fh
from fasthash import _machine_code, descriptor

IMAGE = np.random.default_rng(0).normal(0, 300, (50, 60)).astype("f4")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, no code that came with the package, and no compiled functions in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_machine_code, "BUILT", tmp_path / "none")
    descriptor._kernel.cache_clear()
    yield tmp_path / "fasthash"
    descriptor._kernel.cache_clear()


def counts_anew():
    descriptor._kernel.cache_clear()
    return fh.GridHistogram().transform(IMAGE)


def test_damaged_code_is_made_anew(cache):
    expected = counts_anew()
    (file,) = cache.iterdir()
    good = file.read_bytes()
    for damaged in (good[:100], b"", good[:3000] + b"\xcc" * 64 + good[3064:], good + b"\0"):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(counts_anew(), expected)
        assert len(file.read_bytes()) == len(good)


def test_kept_code_is_used(cache, monkeypatch):
    expected = counts_anew()
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr("fasthash._grid.compile_grid_histogram", None)
    np.testing.assert_array_equal(counts_anew(), expected)


def test_code_of_another_cpu_is_not_used(cache, monkeypatch):
    expected = counts_anew()
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "x86-64")
    np.testing.assert_array_equal(counts_anew(), expected)
    assert len(list(cache.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_done_without(cache):
    cache.parent.joinpath("fasthash").write_text("a file where the folder should be")
    np.testing.assert_array_equal(counts_anew(), fh.GridHistogram().transform(IMAGE))
    assert cache.is_file()


@pytest.mark.parametrize("encoder", ["solar", "solar-paper"])
def test_a_new_user_waits_for_no_compiler(encoder, frames, tmp_path):
    """The first call of all hashes a file by the code that was built with the package: an empty cache, no Numba."""
    code = (
        "import sys, fasthash\n"
        f"fasthash.load_encoder({encoder!r}).encode({str(frames[0])!r})\n"
        "print('numba' in sys.modules)\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "False"
    assert list(tmp_path.iterdir()) == []
