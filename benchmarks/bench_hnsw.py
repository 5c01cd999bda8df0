"""HNSW: recall against queries a second, beside hnswlib, faiss and usearch on the same vectors in the same run.

    python -m pytest -s benchmarks/bench_hnsw.py

50 dimensions, k = 10, M = 16, ef_construction = 200; built on two threads, asked on one. "clustered" is what hashes
look like; "independent" normal coordinates have no structure for a graph to follow, and are the hardest. For every
library the least ef is sought at which recall@10 is .99, and there they are timed: 1000 queries together, and one by
one. Then all take the same values of ef, for the curve (benchmarks/plots.py draws it). Ours alone measures what it
finds once more in float64, and orders ties by row.
"""

import itertools
import time

import numpy as np
import pytest

from fasthash.evaluation import recall_at_k
from fasthash.index import FlatIndex, HNSWIndex

DIM, K, M, EF_CONSTRUCTION, N_QUERIES, RECALL = 50, 10, 16, 200, 1000, 0.99
CURVE = [10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320]


def make_vectors(kind, n):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n + N_QUERIES, DIM))
    if kind == "clustered":
        centres = rng.normal(size=(n // 200, DIM))
        vectors = centres[rng.integers(0, len(centres), len(vectors))] + 0.5 * vectors
    vectors = vectors.astype(np.float32)
    return vectors[:n], vectors[n:]


class Fasthash:
    def __init__(self, vectors):
        self.index = HNSWIndex(DIM, M=M, ef_construction=EF_CONSTRUCTION)
        self.index.add(vectors)
        self.index.build(2)

    def search(self, queries, ef):
        self.index.ef = ef
        return self.index.search(queries, K, 1)[1]


class Hnswlib:
    def __init__(self, vectors):
        self.index = pytest.importorskip("hnswlib").Index("l2", DIM)
        self.index.init_index(len(vectors), M=M, ef_construction=EF_CONSTRUCTION)
        self.index.set_num_threads(2)
        self.index.add_items(vectors)
        self.index.set_num_threads(1)

    def search(self, queries, ef):
        self.index.set_ef(ef)
        return self.index.knn_query(queries, K)[0].astype(np.int64)


class Faiss:
    def __init__(self, vectors):
        faiss = pytest.importorskip("faiss")
        self.index = faiss.IndexHNSWFlat(DIM, M)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        faiss.omp_set_num_threads(2)
        self.index.add(vectors)
        faiss.omp_set_num_threads(1)

    def search(self, queries, ef):
        self.index.hnsw.efSearch = ef
        return self.index.search(queries, K)[1]


class Usearch:
    def __init__(self, vectors):
        index = pytest.importorskip("usearch.index").Index
        self.index = index(ndim=DIM, metric="l2sq", connectivity=M, expansion_add=EF_CONSTRUCTION)
        self.index.add(np.arange(len(vectors)), vectors, threads=2)

    def search(self, queries, ef):
        self.index.expansion_search = ef
        return self.index.search(queries, K, threads=1).keys.astype(np.int64).reshape(len(queries), K)


LIBRARIES = {"fasthash": Fasthash, "hnswlib": Hnswlib, "faiss": Faiss, "usearch": Usearch}


@pytest.mark.parametrize(
    ("kind", "n"),
    [
        ("clustered", 20_000),
        pytest.param("independent", 20_000, marks=pytest.mark.slow),
        pytest.param("clustered", 200_000, marks=pytest.mark.slow),
    ],
)
def test_hnsw(benchmark, timed_in_turns, kind, n):
    vectors, queries = make_vectors(kind, n)
    flat = FlatIndex(DIM)
    flat.add(vectors)
    truth = flat.search(queries, K)[1]
    figures, found = benchmark.extra_info, {}
    for name, library in LIBRARIES.items():
        start = time.perf_counter()
        found[name] = library(vectors)
        figures[f"{name}_build_s"] = round(time.perf_counter() - start, 1)

    def recall(name, ef):
        return round(recall_at_k(found[name].search(queries, ef), truth), 4)

    efs = {name: least_ef(lambda ef, name=name: recall(name, ef)) for name in found}
    together = timed_in_turns(7, **{name: lambda name=name: found[name].search(queries, efs[name]) for name in found})
    singly = timed_in_turns(500, **{name: one_by_one(found[name], queries, efs[name]) for name in found})
    for name in found:
        figures[f"{name}_ef"] = efs[name]
        figures[f"{name}_recall_at_10"] = recall(name, efs[name])
        figures[f"{name}_queries_a_second"] = round(N_QUERIES / together[name])
        figures[f"{name}_us_one_alone"] = round(1e6 * singly[name], 1)
    for name in ("hnswlib", "faiss", "usearch"):
        figures[f"times_as_many_a_second_as_{name}"] = round(together[name] / together["fasthash"], 2)
    figures["curve_ef"] = CURVE
    points = {name: [] for name in found}
    for ef in CURVE:
        calls = {name: lambda name=name, ef=ef: found[name].search(queries, ef) for name in found}
        for name, seconds in timed_in_turns(3, **calls).items():
            points[name].append([recall(name, ef), round(N_QUERIES / seconds)])
    figures.update({f"{name}_curve": curve for name, curve in points.items()})
    benchmark.pedantic(found["fasthash"].search, (queries, efs["fasthash"]), rounds=3)
    print(f"\n{kind} {n} x {DIM}: {figures}")


def least_ef(recall):
    """The least from K on at which the recall is RECALL, by halving."""
    low, high = K, 640
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if recall(middle) >= RECALL else (middle + 1, high)
    return low


def one_by_one(library, queries, ef):
    """A call without arguments that searches for the next query each time."""
    rest = itertools.cycle(range(len(queries)))

    def search():
        i = next(rest)
        return library.search(queries[i : i + 1], ef)

    return search
