"""How the cost of one query grows with the number of rows, one thread; benchmarks/tables.py fits the exponents.

    python -m pytest -s benchmarks/bench_growth.py -m 'not large'
    python -m pytest -s benchmarks/bench_growth.py -m large        # HNSW of a million vectors: a quarter of an hour

Clustered codes have a centre for every hundred codes, and vectors one for every two hundred, at every size: an archive
grows by more objects, not by more pictures of the same. docs/growth.md takes the figures further, on paper.
"""

import time

import numpy as np
import pytest

from benchmarks.bench_hamming_index import built_index, clustered, seconds_each
from fasthash.evaluation import recall_at_k
from fasthash.hamming import knn_hamming
from fasthash.index import FlatIndex, HNSWIndex

CODES = [10**4, 10**5, 10**6, 10**7]
VECTORS = [10**4, 30_000, 10**5, 200_000]
DIM, K, N_QUERIES = 50, 10, 200


@pytest.fixture
def grown(benchmark):
    """A function of sizes and of what measures one of them: its figures, as columns."""

    def measure(sizes, at):
        rows = [{"n": n, **at(n)} for n in sizes]
        benchmark.extra_info.update({name: [row[name] for row in rows] for name in rows[0]})
        benchmark.pedantic(lambda: None)  # what is timed is timed above
        print(f"\n{benchmark.extra_info}")

    return measure


def microseconds(search, queries):
    return round(1e6 * float(np.median(seconds_each(search, queries))), 1)


def test_scan(grown):
    def at(n):
        codes, queries = clustered(n, max(n // 100, 1), 50)
        return {"us": microseconds(lambda query: knn_hamming(query, codes, K, 1), queries)}

    grown(CODES, at)


@pytest.mark.parametrize("kind", ["clustered", "clustered, compact", "uniform"])
def test_multi_index(grown, kind):
    def at(n):
        codes, queries = clustered(n, max(n // 100, 1), N_QUERIES)
        if kind == "uniform":
            codes, queries = (
                np.random.default_rng(seed).integers(0, 256, (m, 8), np.uint8) for seed, m in [(0, n), (1, 50)]
            )
        index, built = built_index(64, codes, compact="compact" in kind)
        return {
            "us": microseconds(lambda query: index.search(query, K, 1), queries),
            "bytes_a_row": round(index.nbytes / n, 1),
            "build_s": round(built, 2),
        }

    grown(CODES, at)


def test_buckets(grown):
    """8-bit codes, the nearest hundred."""

    def at(n):
        codes = np.random.default_rng(2).integers(0, 256, (n, 1), np.uint8)
        index, built = built_index(8, codes)
        return {
            "us": microseconds(lambda query: index.search(query, 100, 1), codes[:N_QUERIES]),
            "bytes_a_row": round(index.nbytes / n, 1),
            "build_s": round(built, 3),
        }

    grown(CODES, at)


def vectors_and_queries(n):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n // 200, DIM))
    both = centres[rng.integers(0, len(centres), n + N_QUERIES)] + 0.5 * rng.normal(size=(n + N_QUERIES, DIM))
    return both[:n].astype(np.float32), both[n:].astype(np.float32)


def test_flat(grown):
    def at(n):
        vectors, queries = vectors_and_queries(n)
        index = FlatIndex(DIM)
        index.add(vectors)
        return {"us": microseconds(lambda query: index.search(query, K, 1), queries[:50])}

    grown([10**4, 10**5, 10**6], at)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [VECTORS, pytest.param([10**6], marks=pytest.mark.large)], ids=["graph", "million"])
def test_hnsw(grown, sizes):
    """M = 16, ef_construction = 200, ef = 100; built on two threads."""

    def at(n):
        vectors, queries = vectors_and_queries(n)
        index = HNSWIndex(DIM)
        index.add(vectors)
        start = time.perf_counter()
        index.build(2)
        built = time.perf_counter() - start
        truth = FlatIndex.search(index, queries, K)[1]
        return {
            "us": microseconds(lambda query: index.search(query, K, 1), queries),
            "build_s": round(built, 1),
            "recall_at_10": round(recall_at_k(index.search(queries, K)[1], truth), 4),
        }

    grown(sizes, at)
