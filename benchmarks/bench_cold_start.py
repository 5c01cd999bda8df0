"""New processes: what importing costs, and the wait until the first hash of an HMI file, from starting Python on.

python -m pytest -s benchmarks/bench_cold_start.py

The processes have an empty cache folder, as that of a user who has just installed fasthash. "compiling" is what such a
user would wait on a host for which no kernel was built.
"""

import os
import subprocess
import sys

import pytest
from bench_file import rice_file  # noqa: F401  a fixture

ENCODE = "import sys, fasthash; fasthash.load_encoder(sys.argv[1]).encode(sys.argv[2])"
COMPILE = f"from pathlib import Path; from fasthash import _machine_code; _machine_code.BUILT = Path('none'); {ENCODE}"
GETDATA = (
    "import sys, warnings; warnings.simplefilter('ignore'); from astropy.io import fits; fits.getdata(sys.argv[1])"
)


@pytest.fixture
def new_process(tmp_path):
    """A function of code and arguments that gives a call to run them in a process of its own."""

    def prepare(code, *arguments, cache="kept"):
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / cache)}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return lambda: subprocess.run(command, check=True, capture_output=True, env=environment)

    return prepare


def report(benchmark, medians, ours):
    for name, seconds in medians.items():
        benchmark.extra_info[f"{name}_s"] = round(seconds, 3)
        benchmark.extra_info[f"{name}_by_{ours}"] = round(seconds / medians[ours], 2)
    print(f"\n{benchmark.extra_info}")


def test_import(benchmark, timed_in_turns, new_process):
    """`names` imports the modules of all public names."""
    names = "import fasthash; [getattr(fasthash, name) for name in fasthash.__all__]"
    calls = {"python": "pass", "fasthash": "import fasthash", "numpy": "import numpy", "names": names}
    report(benchmark, timed_in_turns(**{name: new_process(code) for name, code in calls.items()}), "fasthash")
    benchmark(new_process("import fasthash"))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["solar", "solar-paper"])
def test_first_hash(encoder, benchmark, timed_in_turns, new_process, rice_file):  # noqa: F811
    turn = iter(range(100))

    def compiling():
        new_process(COMPILE, encoder, rice_file, cache=f"empty-{next(turn)}")()

    medians = timed_in_turns(
        rounds=3,
        first_hash=new_process(ENCODE, encoder, rice_file),
        compiling=compiling,
        astropy_getdata=new_process(GETDATA, rice_file),
    )
    benchmark.extra_info["file"] = rice_file.name
    report(benchmark, medians, "first_hash")
    benchmark(new_process(ENCODE, encoder, rice_file))
