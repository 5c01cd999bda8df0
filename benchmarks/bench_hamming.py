"""Exact Hamming search, one thread, beside faiss and the read floor in the same run.

    python -m pytest -s benchmarks/bench_hamming.py

Uniform random codes, k = 10. The read floor is ``codes.sum()`` on 64-bit words: no exact scan can be faster than
reading the codes. Ratios are of medians, the contenders taking turns, and go into ``extra_info`` whichever way they
fall.
"""

import numpy as np
import pytest

from fasthash.hamming import knn_hamming, simd_level

N_CODES = 1_000_000
K = 10


@pytest.mark.parametrize(("n_queries", "n_bits"), [(1, 64), (64, 64), (1, 256), (64, 256)])
def test_knn(benchmark, timed_in_turns, n_queries, n_bits):
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (N_CODES, n_bits // 8), np.uint8)
    queries = rng.integers(0, 256, (n_queries, n_bits // 8), np.uint8)
    peer = faiss.IndexBinaryFlat(n_bits)
    peer.add(codes)

    def ours():
        return knn_hamming(queries, codes, K, num_threads=1)

    np.testing.assert_array_equal(ours()[0], peer.search(queries, K)[0])
    medians = timed_in_turns(
        rounds=31 if n_queries == 1 else 7,
        ours=ours,
        faiss=lambda: peer.search(queries, K),
        read_floor=codes.view(np.uint64).sum,
    )
    benchmark.extra_info.update(
        simd_level=simd_level(),
        ms_per_query=round(1e3 * medians["ours"] / n_queries, 4),
        faiss_ms_per_query=round(1e3 * medians["faiss"] / n_queries, 4),
        read_floor_ms=round(1e3 * medians["read_floor"], 4),
        times_faster_than_faiss=round(medians["faiss"] / medians["ours"], 2),
        times_the_read_floor=round(medians["ours"] / n_queries / medians["read_floor"], 2),
    )
    benchmark.pedantic(ours, rounds=3, iterations=1)
    print(f"\n{n_queries} x {N_CODES} x {n_bits} bit, 1 thread: {benchmark.extra_info}")
