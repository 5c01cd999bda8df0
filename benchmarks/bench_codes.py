"""Floats to packed codes, beside NumPy's own comparison and packbits.

    python -m pytest -s benchmarks/bench_codes.py

200,000 hashes of 64 floats on one thread: one bit a value by thresholds (`binarize`), and one threshold an image, its
own median (`binarize_percentile`, the radio paper's). The floor is a plain pass over the floats.
"""

import numpy as np

from fasthash.codes import binarize, binarize_percentile

N, BITS = 200_000, 64


def test_codes(benchmark, timed_in_turns):
    rng = np.random.default_rng(0)
    hashes = rng.normal(size=(N, BITS)).astype(np.float32)
    thresholds = rng.normal(scale=0.1, size=BITS).astype(np.float32)

    def by_numpy():
        return np.packbits(hashes > thresholds, axis=1)

    np.testing.assert_array_equal(binarize(hashes, thresholds), by_numpy())
    medians = timed_in_turns(
        5,
        thresholds=lambda: binarize(hashes, thresholds),
        numpy=by_numpy,
        percentile=lambda: binarize_percentile(hashes),
        numpy_median=lambda: np.packbits(hashes >= np.median(hashes, axis=1, keepdims=True), axis=1),
        read_floor=hashes.sum,
    )
    for name, seconds in medians.items():
        benchmark.extra_info[f"{name}_ns_each"] = round(1e9 * seconds / N, 1)
    benchmark.extra_info["thresholds_by_numpy"] = round(medians["thresholds"] / medians["numpy"], 2)
    benchmark.extra_info["percentile_by_numpy"] = round(medians["percentile"] / medians["numpy_median"], 2)
    benchmark.pedantic(binarize, args=(hashes, thresholds), rounds=3, iterations=1)
    print(f"\n{benchmark.extra_info}")
