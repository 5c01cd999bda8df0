"""The network of `solar-paper` beside onnxruntime and numpy's matrix products: one descriptor at a time, and many.

python -m pytest -s benchmarks/bench_encoder.py     # each on one thread, in a process where numpy has no other
"""

import json
import os
import subprocess
import sys
import time

import numpy as np

import fasthash as fh
from fasthash.encoder import _Session

ROWS = 256


def products(x, layers):
    """The three matrix products, and nothing else: the floor."""
    for weights, _ in layers:
        x = x @ weights
    return x


def network(x, layers):
    """All that the encoder does, the scaling of its input included."""
    x = np.log(x * 1e3 + 1) * 0.1
    for weights, bias in layers:
        x = np.maximum(x @ weights + bias, 0)
    return x


def contenders(n):
    rng = np.random.default_rng(0)
    sizes = [(400, 200), (200, 100), (100, 50)]
    layers = [(rng.normal(0, 0.1, size).astype("f4"), rng.normal(0, 0.1, size[1]).astype("f4")) for size in sizes]
    rows = rng.random((n, 400), np.float32)
    encoder = fh.load_encoder("solar-paper")
    session = _Session(encoder.data)
    square = rng.random((256, 256), np.float32)
    calls = {
        "fasthash": lambda: encoder.encode_inputs(rows),
        "onnxruntime": lambda: session.run(rows),
        "numpy_network": lambda: network(rows, layers),
        "numpy_products": lambda: products(rows, layers),
    }
    return calls if n == 1 else {**calls, "numpy_256_cubed": lambda: square @ square}


def measure(n, rounds):
    """p50 and p99 of each call in microseconds; many calls a turn: each finds its weights where it left them."""
    calls = contenders(n)
    times = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            for _ in range(1000 if n == 1 else 20):
                start = time.perf_counter_ns()
                call()
                if turn:
                    times[name].append((time.perf_counter_ns() - start) / 1e3)
    return {name: [float(np.percentile(of, q)) for q in (50, 99)] for name, of in times.items()}


def on_one_thread(n, rounds):
    one = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "MKL", "OMP", "VECLIB_MAXIMUM")}
    command = [sys.executable, __file__, str(n), str(rounds)]
    return json.loads(subprocess.run(command, env={**os.environ, **one}, capture_output=True, check=True).stdout)


def test_one_descriptor(benchmark):
    found = on_one_thread(1, 20)
    for name, (p50, p99) in found.items():
        benchmark.extra_info[f"{name}_us"] = round(p50, 2)
        benchmark.extra_info[f"{name}_p99_by_p50"] = round(p99 / p50, 2)
        benchmark.extra_info[f"{name}_by_fasthash"] = round(p50 / found["fasthash"][0], 2)
    benchmark(contenders(1)["fasthash"])
    print(f"\n{benchmark.extra_info}")


def test_many_descriptors(benchmark):
    """Beside the rate of one large product, the peak of this core as numpy reaches it."""
    found = {name: p50 for name, (p50, _) in on_one_thread(ROWS, 10).items()}
    peak = 2 * 256**3 / found.pop("numpy_256_cubed")
    work = 2 * ROWS * (400 * 200 + 200 * 100 + 100 * 50)
    for name, us in found.items():
        benchmark.extra_info[f"{name}_us_a_row"] = round(us / ROWS, 2)
        benchmark.extra_info[f"{name}_by_fasthash"] = round(us / found["fasthash"], 2)
        benchmark.extra_info[f"{name}_share_of_peak"] = round(work / us / peak, 2)
    benchmark(contenders(ROWS)["fasthash"])
    print(f"\n{benchmark.extra_info}")


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:]))))
