"""HammingIndex beside faiss in the same run, one thread unless said; distances are compared too.

    python -m pytest -s benchmarks/bench_hamming_index.py -m 'not large'
    python -m pytest -s benchmarks/bench_hamming_index.py -m large       # 100 M codes: some minutes, 10 GB of memory

Clustered codes: each is one of many centres with up to 6 flipped bits; a query is one of them with 1 to 4 bits flipped.
Times are medians; a query is asked once in each round, so none finds its own way still in the caches.
"""

import time

import numpy as np
import pytest

from fasthash.hamming import knn_hamming, simd_level
from fasthash.hamming_index import HammingIndex

K = 10


def clustered(n, centres, n_queries, seed=0):
    """64-bit codes (n, 8) and queries (n_queries, 8)."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**64, centres, np.uint64)
    codes = np.empty(n, np.uint64)
    for start in range(0, n, 10**7):
        part = codes[start : start + 10**7]
        part[:] = flipped(rng, words[rng.integers(0, centres, len(part))], 0, 6)
    queries = flipped(rng, codes[rng.integers(0, n, n_queries)], 1, 4)
    return codes.view(np.uint8).reshape(-1, 8), queries.view(np.uint8).reshape(-1, 8)


def flipped(rng, words, least, most):
    """Each word with so many bits flipped, drawn one by one; two flips of one bit are none."""
    flips = rng.integers(least, most + 1, len(words))
    for i in range(most):
        bit = np.uint64(1) << rng.integers(0, 64, len(words)).astype(np.uint64)
        words = np.where(flips > i, words ^ bit, words)
    return words


def seconds_each(search, queries):
    """Of queries asked one at a time, in a second round."""
    for _ in range(2):
        times = []
        for i in range(len(queries)):
            start = time.perf_counter()
            search(queries[i : i + 1])
            times.append(time.perf_counter() - start)
    return np.array(times)


def seconds(call, rounds=5):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def report(benchmark, codes, queries, built, index, faiss):
    """Time the index and a flat faiss index, and put it all where the benchmark keeps it."""
    flat = faiss.IndexBinaryFlat(64)
    flat.add(codes)
    some = queries[:9]
    distances, _ = index.search(queries, K)
    np.testing.assert_array_equal(distances[: len(some)], flat.search(some, K)[0])
    each = seconds_each(lambda query: index.search(query, K, num_threads=1), queries)
    flat_each = float(np.median(seconds_each(lambda query: flat.search(query, K), some)))
    together = {threads: seconds(lambda t=threads: index.search(queries, K, t)) / len(queries) for threads in (1, 2)}
    benchmark.extra_info.update(
        simd_level=simd_level(),
        build_seconds=round(built, 2),
        bytes_per_byte_of_code=round(index.nbytes / codes.nbytes, 2),
        p50_us=round(1e6 * float(np.median(each)), 1),
        p99_us=round(1e6 * float(np.quantile(each, 0.99)), 1),
        mean_us=round(1e6 * float(each.mean()), 1),
        scan_us=round(1e6 * float(np.median(seconds_each(lambda query: knn_hamming(query, codes, K, 1), some)))),
        faiss_flat_us=round(1e6 * flat_each),
        times_faster_than_faiss_flat=round(flat_each / float(np.median(each))),
        all_at_once_us={threads: round(1e6 * each_one, 1) for threads, each_one in together.items()},
        times_as_many_a_second_all_at_once=round(float(each.mean()) / together[2], 2),
    )
    benchmark.pedantic(lambda: index.search(queries, K, 1), rounds=3, iterations=1)


def built_index(n_bits, codes, compact=False):
    start = time.perf_counter()
    index = HammingIndex(n_bits, compact=compact)
    index.add(codes)
    return index, time.perf_counter() - start


def test_ten_million_clustered(benchmark):
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    codes, queries = clustered(10**7, 10**5, 1000)
    index, built = built_index(64, codes)
    report(benchmark, codes, queries, built, index, faiss)
    multi = faiss.IndexBinaryMultiHash(64, 4, 16)
    multi.nflip = 1
    multi.add(codes)
    wanted, (distances, _) = index.search(queries, K)[0], multi.search(queries, K)
    multi_each = float(np.median(seconds_each(lambda query: multi.search(query, K), queries[:200])))
    benchmark.extra_info.update(
        faiss_multi_hash_us=round(1e6 * multi_each),
        faiss_multi_hash_recall=round(float((distances == wanted).mean()), 4),
        times_faster_than_faiss_multi_hash=round(1e6 * multi_each / benchmark.extra_info["p50_us"]),
    )
    print(f"\n10 M x 64 bit, clustered: {benchmark.extra_info}")


@pytest.mark.large
def test_a_hundred_million_clustered(benchmark):
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    codes, queries = clustered(10**8, 10**6, 1000)
    index, built = built_index(64, codes)
    report(benchmark, codes, queries, built, index, faiss)
    print(f"\n100 M x 64 bit, clustered: {benchmark.extra_info}")


def test_ten_million_uniform(benchmark):
    """The worst there is for tables: no code has a near one."""
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    codes, queries = np.random.default_rng(1).integers(0, 256, (10**7, 8), np.uint8), clustered(64, 64, 64)[1]
    index, built = built_index(64, codes)
    report(benchmark, codes, queries, built, index, faiss)
    print(f"\n10 M x 64 bit, uniform: {benchmark.extra_info}")


@pytest.mark.parametrize("n", [10**7, pytest.param(10**8, marks=pytest.mark.large)])
def test_buckets(benchmark, n):
    """8-bit codes: the top 100, and the whole archive in order."""
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    codes = np.random.default_rng(2).integers(0, 256, (n, 1), np.uint8)
    queries = np.arange(0, 256, 5, dtype=np.uint8)[:, np.newaxis]
    index, built = built_index(8, codes)
    flat = faiss.IndexBinaryFlat(8)
    flat.add(codes)
    np.testing.assert_array_equal(index.search(queries[:3], 100)[0], flat.search(queries[:3], 100)[0])
    each = float(np.median(seconds_each(lambda query: index.search(query, 100, 1), queries)))
    flat_each = float(np.median(seconds_each(lambda query: flat.search(query, 100), queries[:3])))
    benchmark.extra_info.update(
        build_seconds=round(built, 2),
        p50_us=round(1e6 * each, 1),
        faiss_flat_us=round(1e6 * flat_each),
        per_cent_of_faiss_flat=round(100 * each / flat_each, 4),
        whole_ranking_ms=round(1e3 * seconds(lambda: index.search(queries[:1], n, 1), 3)),
    )
    benchmark.pedantic(lambda: index.search(queries, 100, 1), rounds=3, iterations=1)
    print(f"\n{n} x 8 bit: {benchmark.extra_info}")
