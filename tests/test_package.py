"""What importing the package costs, and that its public names are what they say."""

import json
import subprocess
import sys

import pytest

import fasthash as fh

HEAVY = ["numpy", "torch", "sunpy", "nmslib", "astropy", "matplotlib", "numba", "onnxruntime", "PIL"]


def test_import_is_light():
    code = f"import sys, json, fasthash; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    assert done.stderr == ""


def test_modules_of_public_names_come_with_the_package():
    code = "import fasthash as fh; print(fh.io.Limits().max_pixels, fh.errors.ReadError is fh.ReadError)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(2**26), "True"]
    assert set(fh.__all__) <= set(dir(fh))
    with pytest.raises(AttributeError, match="no_such_name"):
        fh.no_such_name  # noqa: B018


def test_public_names_exist_and_are_documented():
    for name in fh.__all__:
        assert getattr(fh, name).__doc__ or name == "__version__"


def test_every_error_is_a_fasthash_error():
    for name in fh.__all__:
        item = getattr(fh, name)
        if isinstance(item, type) and issubclass(item, Exception):
            assert issubclass(item, fh.FastHashError)
