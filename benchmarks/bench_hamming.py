"""Exact Hamming search beside faiss and the read floor, every forced instruction set taking its turn in the same run.

    python -m pytest -s benchmarks/bench_hamming.py

Uniform random codes, k = 10. The read floor is ``codes.sum()`` on 64-bit words, a plain pass over the codes. Ratios are
of medians, the contenders taking turns, and go into ``extra_info`` whichever way they fall. faiss has one thread. Two
threads take turns with one, apart from the others: a second core that has slept meanwhile wakes up late.
"""

import numpy as np
import pytest

from fasthash.hamming import available_levels, knn_hamming

K = 10
LEVELS = [level for level in ("avx2", "avx512", "avx512vpopcntdq", "neon") if level in available_levels()]


@pytest.mark.parametrize(
    ("n_queries", "n_codes", "n_bits"),
    [(1, 10_000_000, 64), (1, 1_000_000, 64), (64, 1_000_000, 64), (1, 1_000_000, 256), (64, 1_000_000, 256)],
)
def test_knn(benchmark, timed_in_turns, monkeypatch, n_queries, n_codes, n_bits):
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (n_codes, n_bits // 8), np.uint8)
    queries = rng.integers(0, 256, (n_queries, n_bits // 8), np.uint8)
    peer = faiss.IndexBinaryFlat(n_bits)
    peer.add(codes)

    def ours(level, num_threads=1):
        monkeypatch.setenv("FASTHASH_SIMD", level)
        return knn_hamming(queries, codes, K, num_threads)

    for level in LEVELS:
        np.testing.assert_array_equal(ours(level)[0], peer.search(queries, K)[0])
    contenders = {level: lambda level=level: ours(level) for level in LEVELS}
    contenders["faiss"] = lambda: peer.search(queries, K)
    contenders["read_floor"] = codes.view(np.uint64).sum
    rounds = 11 if n_queries == 1 else 5
    medians = timed_in_turns(rounds, **contenders)
    threads = timed_in_turns(rounds, one=lambda: ours(LEVELS[-1]), two=lambda: ours(LEVELS[-1], 2))
    medians["two_threads"] = threads["two"]
    for name in medians:
        benchmark.extra_info[f"{name}_ms"] = round(1e3 * medians[name], 3)
    for level in LEVELS:
        benchmark.extra_info[f"{level}_times_faster_than_faiss"] = round(medians["faiss"] / medians[level], 2)
    best = medians[LEVELS[-1]]
    benchmark.extra_info["times_the_read_floor"] = round(best / medians["read_floor"], 2)
    benchmark.extra_info["two_threads_times_faster"] = round(threads["one"] / threads["two"], 2)
    benchmark.pedantic(ours, args=LEVELS[-1:], rounds=3, iterations=1)
    print(f"\n{n_queries} x {n_codes} x {n_bits} bit: {benchmark.extra_info}")
