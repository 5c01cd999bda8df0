"""A folder of 200 HMI files over threads, processes and a Dask cluster of this host: seconds, and memory.

python -m pytest -s benchmarks/bench_bulk.py

One file stands for all, under 200 names: what is measured is decoding and sharing out, not the disk. Starting Python,
and the processes or the cluster, is part of the time.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
from bench_file import rice_file  # noqa: F401  a fixture

FILES = 200
WAYS = {
    "one_process": ["--processes", "1"],
    "two_processes": ["--processes", "2"],
    "one_thread": ["--threads", "1"],
    "two_threads": ["--threads", "2"],
    "dask_local": ["--dask", "local"],
}
# A process of its own, since that of the benchmark would count: children start as large as who starts them.
MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


@pytest.fixture
def folder(rice_file, tmp_path):  # noqa: F811
    made = tmp_path / "frames"
    made.mkdir()
    shutil.copy(rice_file, made / "frame-000.fits")
    for i in range(1, FILES):
        os.link(made / "frame-000.fits", made / f"frame-{i:03}.fits")
    return made


@pytest.mark.slow
def test_folder(benchmark, folder, tmp_path):
    def encode(way):
        """Seconds, and MB of the largest process."""
        command = ["encode", str(folder), "--encoder", "solar", "-o", str(tmp_path / f"{way}.npz"), *WAYS[way]]
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, sys.executable, "-m", "fasthash", *command], capture_output=True, check=True
        )
        return json.loads(done.stdout)

    results = {way: [] for way in WAYS}
    for _ in range(3):
        for way, of in results.items():
            of.append(encode(way))
    assert len({(tmp_path / f"{way}.npz").read_bytes() for way in WAYS}) == 1
    seconds = {way: sorted(time for time, _ in of)[1] for way, of in results.items()}
    for way, of in results.items():
        benchmark.extra_info[f"{way}_s"] = round(seconds[way], 2)
        benchmark.extra_info[f"{way}_mb"] = round(max(memory for _, memory in of))
        benchmark.extra_info[f"one_process_by_{way}"] = round(seconds["one_process"] / seconds[way], 2)
    benchmark.pedantic(encode, ["two_processes"], rounds=1)
    print(f"\n{benchmark.extra_info}")
