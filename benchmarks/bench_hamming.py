"""Exact Hamming search, one thread, beside faiss and the read floor in the same run.

    python -m pytest benchmarks/bench_hamming.py

Uniform random codes, k = 10. The read floor is ``codes.sum()`` on 64-bit words: no exact scan can be faster than
reading the codes. Ratios are of least times, which noise on a shared machine disturbs least, and they go into
``extra_info`` whichever way they fall.
"""

import time

import numpy as np
import pytest

from fasthash.hamming import knn_hamming, simd_level

N_CODES = 1_000_000
K = 10


def least_time(work, repeats):
    """Seconds of the fastest of several calls, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize(("n_queries", "n_bits"), [(1, 64), (64, 64), (1, 256), (64, 256)])
def test_knn(benchmark, n_queries, n_bits):
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (N_CODES, n_bits // 8), np.uint8)
    queries = rng.integers(0, 256, (n_queries, n_bits // 8), np.uint8)
    peer = faiss.IndexBinaryFlat(n_bits)
    peer.add(codes)
    repeats = 30 if n_queries == 1 else 5

    found = benchmark.pedantic(
        knn_hamming, (queries, codes, K), {"num_threads": 1}, rounds=repeats, iterations=1, warmup_rounds=1
    )
    np.testing.assert_array_equal(found[0], peer.search(queries, K)[0])

    ours = benchmark.stats.stats.min
    faiss_time = least_time(lambda: peer.search(queries, K), repeats)
    floor = least_time(codes.view(np.uint64).sum, repeats)
    benchmark.extra_info.update(
        simd_level=simd_level(),
        ms_per_query=round(1e3 * ours / n_queries, 4),
        faiss_ms_per_query=round(1e3 * faiss_time / n_queries, 4),
        read_floor_ms=round(1e3 * floor, 4),
        times_faster_than_faiss=round(faiss_time / ours, 2),
        times_the_read_floor=round(ours / n_queries / floor, 2),
    )
    print(f"\n{n_queries} x {N_CODES} x {n_bits} bit, 1 thread: {benchmark.extra_info}")
