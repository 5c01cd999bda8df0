"""A catalog of many images: opened, searched, filtered and added to, each beside what it cannot be faster than.

    python -m pytest -s benchmarks/bench_catalog.py -m 'not large'    # 100,000 images
    python -m pytest -s benchmarks/bench_catalog.py -m large          # 1,000,000: 10 GB of disk, 4 GB of memory

The images are simulated as hashes: 64 floats and 64 bits, those of the encoder solar, every 6 minutes; each value
wanders about zero and forgets within 1 to 20 days, with a little noise. Queries are hashes between those of the
catalog, so no encoder is timed. Searches take turns with their peers in one thread of one process; opening is timed in
new processes, imports included.
"""

import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import fasthash as fh
from fasthash.encoder import Encoded
from fasthash.evaluation import recall_at_k
from fasthash.io import Image

SIZES = [100_000, pytest.param(1_000_000, marks=pytest.mark.large)]
K, STEP, N_QUERIES = 10, 360_000, 300
NO_PIXELS = np.empty((0, 0), np.float32)

OPEN = """
import time; start = time.perf_counter()
import sys, numpy as np, fasthash as fh
imported = time.perf_counter()
catalog = fh.Catalog.open(sys.argv[1])
opened = time.perf_counter()
catalog.search(np.zeros(64, np.float32) + 0.1)
print(imported - start, opened - imported, time.perf_counter() - opened)
"""


def wandering(n, dim, rng):
    from scipy.signal import lfilter

    hashes = np.empty((n, dim), np.float32)
    for value in range(dim):
        keeps = np.exp(-1 / rng.uniform(240, 4800))
        hashes[:, value] = np.tanh(lfilter([np.sqrt(1 - keeps**2)], [1, -keeps], rng.normal(size=n)))
    return hashes + rng.normal(0, 0.02, hashes.shape).astype(np.float32)


def items(hashes, first, encoder):
    for i, vector in enumerate(hashes, first):
        time = np.datetime64(i * STEP, "ms")
        header = {"TELESCOP": "SDO/HMI", "CROTA2": 179.9 + i % 7 / 100, "CRLT_OBS": 7 * np.sin(i / 1e4)}
        digest = hashlib.blake2b(b"%d" % i, digest_size=16).hexdigest()
        image = Image(
            NO_PIXELS, f"/archive/hmi/2014/hmi.M_720s.{i:08d}_TAI.magnetogram.fits", time, header, None, digest
        )
        cells = np.frombuffer(hashlib.shake_128(b"%d" % i).digest(512), np.uint8)
        yield Encoded(image, vector, ("quiet", "active")[i % 10 == 0], cells, encoder.fingerprint)


@pytest.fixture(scope="module", params=SIZES)
def archive(request, tmp_path_factory):
    """A compacted catalog, its hashes, and queries: float32 (n, 64)."""
    n, rng = request.param, np.random.default_rng(0)
    encoder = fh.load_encoder("solar")
    hashes = wandering(n + 1000, encoder.dim, rng)
    start = time.perf_counter()
    with fh.Catalog.create(tmp_path_factory.mktemp("archive") / "sun.catalog", encoder) as catalog:
        catalog._is_worth_a_file = lambda table: False  # not while it grows: a graph at the end is enough  # noqa: ARG005
        for first in range(0, n, 10_000):
            catalog.insert(items(hashes[first : min(first + 10_000, n)], first, encoder))
        inserted = time.perf_counter()
        catalog.compact()
        compacted = time.perf_counter()
        rows = rng.integers(1, n, N_QUERIES)
        queries = (hashes[rows] + hashes[rows - 1]) / 2
        print(f"\n{n} images: inserted in {inserted - start:.0f} s, compacted in {compacted - inserted:.0f} s")
        yield catalog, hashes, queries, rows


def each(searches, queries):
    """Seconds (n_queries,) of each search, which take turns; a second round, so none is the first of its kind."""
    seconds = {name: np.empty(len(queries)) for name in searches}
    for _ in range(2):
        for i, query in enumerate(queries):
            for name, search in searches.items():
                start = time.perf_counter()
                search(query)
                seconds[name][i] = time.perf_counter() - start
    return seconds


def tell(benchmark, seconds, **more):
    for name, values in seconds.items():
        benchmark.extra_info[f"{name}_p50_us"] = round(1e6 * float(np.median(values)), 1)
        benchmark.extra_info[f"{name}_p99_us"] = round(1e6 * float(np.quantile(values, 0.99)), 1)
    benchmark.extra_info.update(more)
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def test_search(benchmark, archive):
    """By graph, beside the graph alone and the scan; and by code, beside the scan of codes."""
    catalog, _, queries, _ = archive
    rows = catalog.rows()
    codes = catalog.encoder.binarize(queries)
    graph = catalog._state.neighbours.graph(catalog._state.table, "l2")
    seconds = each(
        {
            "search": lambda q: catalog.search(q, K),
            "graph_alone": lambda q: graph.search(q[None], rows.hashes, K, 200, 1),
            "hamming": lambda q: catalog.search(q, K, "hamming"),
        },
        queries,
    )
    some = queries[:20]
    seconds |= each({"exact": lambda q: catalog.search(q, K, exact=True)}, some)
    seconds |= each({"scan_of_codes": lambda c: fh.knn_hamming(c, rows.codes, K, 1)}, codes[:20])
    found = [[hit.id for hit in hits] for hits in catalog.search_many(queries, K)]
    truth = [[hit.id for hit in hits] for hits in catalog.search_many(queries, K, exact=True)]
    start = time.perf_counter()
    catalog.search_many(queries, K)
    together = (time.perf_counter() - start) / len(queries)
    benchmark.pedantic(lambda: catalog.search(queries[0], K), rounds=3)
    recall = recall_at_k(np.array(found), np.array(truth))
    tell(
        benchmark,
        seconds,
        images=len(rows.ids),
        recall_at_10=round(recall, 4),
        many_at_once_us=round(1e6 * together, 1),
    )
    assert recall > 0.95


def test_filters(benchmark, archive):
    """48 hours of an archive (481 images), beside NumPy on rows that are known already; and other filters."""
    catalog, hashes, queries, rows = archive
    span, first, number = {}, {}, {}
    for query, row in zip(queries, rows.tolist(), strict=True):
        key = query.tobytes()
        span[key] = np.datetime64((row - 240) * STEP, "ms"), np.datetime64((row + 240) * STEP, "ms")
        first[key], number[key] = max(0, row - 240), row + 2

    def by_numpy(query):
        part = hashes[first[query.tobytes()] :][:481]
        distances = ((part - query) ** 2).sum(axis=1)
        return np.argsort(distances)[:K]

    seconds = each(
        {
            "within_48h": lambda q: catalog.search(q, K, between=span[q.tobytes()]),
            "numpy_on_these_rows": by_numpy,
            "exclude_12h": lambda q: catalog.search(number[q.tobytes()], K, exclude_within="12h"),
            "hamming_exclude_12h": lambda q: catalog.search(number[q.tobytes()], K, "hamming", exclude_within="12h"),
            "distinct_6h": lambda q: catalog.search(q, K, distinct="6h"),
        },
        queries,
    )
    some = queries[:10]
    seconds |= each(
        {
            "label_of_a_tenth": lambda q: catalog.search(q, K, label="active"),
            "header_card": lambda q: catalog.search(q, K, where={"CRLT_OBS": (5, 7)}),
            "region": lambda q: catalog.search(number[q.tobytes()], K, region="north"),
        },
        some,
    )
    benchmark.pedantic(lambda: catalog.search(queries[0], K, between=span[queries[0].tobytes()]), rounds=3)
    tell(benchmark, seconds, images=len(catalog))


def test_open(benchmark, archive):
    """In new processes, with caches and without; beside reading and checking the bytes of the caches."""
    catalog, *_ = archive
    command = [sys.executable, "-c", OPEN, str(catalog.path)]

    def run():
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return time.perf_counter() - start, *map(float, done.stdout.split())

    with_caches = np.median([run() for _ in range(4)][1:], axis=0)
    start = time.perf_counter()
    read = 0
    for name in ("rows", "graph-l2"):
        data = (catalog.path / "cache" / name).read_bytes()
        hashlib.blake2b(data)
        read += len(data)
    floor = time.perf_counter() - start
    kept = catalog.path / "kept"
    (catalog.path / "cache").rename(kept)
    without = run()
    for path in (catalog.path / "cache").iterdir():
        path.unlink()
    (catalog.path / "cache").rmdir()
    kept.rename(catalog.path / "cache")
    benchmark.pedantic(run, rounds=1)
    names = ("process_s", "import_s", "open_s", "first_search_s")
    benchmark.extra_info.update(images=len(catalog), cache_bytes=read, read_and_hash_caches_s=round(floor, 2))
    benchmark.extra_info.update({name: round(float(value), 2) for name, value in zip(names, with_caches, strict=True)})
    benchmark.extra_info.update({f"{name}_without_caches": round(v, 2) for name, v in zip(names, without, strict=True)})
    size = (catalog.path / "catalog.sqlite").stat().st_size
    benchmark.extra_info["journal_bytes_an_image"] = round(size / len(catalog))
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def similar(rows, queries):
    """The share of rows, the query left out, that were taken within 24 hours of the query."""
    return float(((np.abs(rows - queries[:, np.newaxis]) <= 240).sum(axis=1) - 1).mean() / 480)


@pytest.mark.slow
def test_precision_is_that_of_memory(benchmark, archive):
    """The window protocol on what the catalog gives back, and by its own searches, beside the hashes that went in."""
    catalog, hashes, *_ = archive
    n = 100_000
    rows, times = catalog.rows(), np.arange(n) * np.timedelta64(STEP, "ms")
    np.testing.assert_array_equal(rows.hashes[:n], hashes[:n])
    np.testing.assert_array_equal(rows.times[:n], times + np.datetime64(0, "ms"))
    if len(catalog) > n:
        pytest.skip("measured on 100,000 images")
    queries = np.random.default_rng(1).integers(0, n, 500)
    precision = {}
    for name, exact in (("graph", False), ("exact", True)):
        found = catalog.search_many(hashes[queries], 481, exact=exact)
        rows = np.array([[hit.id - 2 for hit in hits] for hits in found])
        precision[name] = similar(rows, queries)
    wide = hashes[:n].astype(float)
    distances = (wide**2).sum(axis=1) - 2 * wide[queries] @ wide.T
    order = np.argpartition(distances, 481, axis=1)[:, :481]
    precision["in_memory"] = similar(order, queries)
    benchmark.extra_info.update(images=n, **{f"precision_{name}": round(value, 5) for name, value in precision.items()})
    benchmark.pedantic(lambda: None, rounds=1)
    print(f"\n{benchmark.name}: {benchmark.extra_info}")
    assert abs(precision["exact"] - precision["in_memory"]) < 1e-4


def test_add_one(benchmark, archive, tmp_path):
    """One row, durable, and a search that finds it; beside 4 KB written and brought to the same disk."""
    catalog, hashes, *_ = archive
    n = len(catalog)
    new = iter(list(items(hashes[-1000:], n, catalog.encoder)))
    file = (tmp_path / "floor").open("wb", buffering=0)

    def write_and_sync(_):
        file.write(bytes(4096))
        os.fsync(file.fileno())

    added = []

    def insert(_):
        added.append(next(new))
        catalog.insert(added[-1:])

    def found(_):
        assert catalog.search(added[-1].hash, 1)[0].distance == 0

    seconds = each({"write_and_sync": write_and_sync, "insert": insert, "search_for_it": found}, range(200))
    file.close()
    benchmark.pedantic(lambda: insert(None), rounds=3)
    tell(benchmark, seconds, images=n)
