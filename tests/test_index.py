import subprocess
import sys
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import knn, vector_distances

from fasthash import _graph as graphs
from fasthash import _scan, _vectors, hamming
from fasthash import index as module
from fasthash._graph import Graph, Levels
from fasthash._storage import read_container, write_container
from fasthash.errors import ArgumentError, CorruptFileError, FastHashError
from fasthash.evaluation import recall_at_k
from fasthash.index import FlatIndex, HNSWIndex, knn_exact

METRICS = ("l2", "cosine")
both_metrics = pytest.mark.parametrize("metric", METRICS)
early = pytest.mark.usefixtures("early_graphs")
both_indexes = pytest.mark.parametrize("kind", [FlatIndex, HNSWIndex])


def clustered(rng, n, dim, spread=0.5):
    return rng.normal(size=(20, dim))[rng.integers(0, 20, n)] + spread * rng.normal(size=(n, dim))


KINDS = {
    "normal": lambda rng, n, dim: rng.normal(size=(n, dim)),
    "clustered": lambda rng, n, dim: clustered(rng, n, dim, 1e-3),
    "duplicated": lambda rng, n, dim: rng.normal(size=(7, dim))[rng.integers(0, 7, n)],
    "lattice": lambda rng, n, dim: rng.integers(-1, 2, size=(n, dim)),
    "offset": lambda rng, n, dim: 1e4 + 1e-3 * rng.integers(-5, 6, size=(n, dim)),
    "zeros": lambda rng, n, dim: rng.normal(size=(n, dim)) * (rng.random((n, 1)) < 0.8),
    "subnormal": lambda rng, n, dim: 1e-40 * rng.normal(size=(n, dim)),
    "tiny": lambda rng, n, dim: 1e-20 * rng.normal(size=(n, dim)),
    "huge": lambda rng, n, dim: 1e37 * rng.normal(size=(n, dim)),
    "mixed": lambda rng, n, dim: rng.normal(size=(n, dim)) * 10.0 ** rng.integers(-44, 37, size=(n, 1)),
    "equal": lambda rng, n, dim: np.ones((n, dim)) * rng.normal(),
}


def draw(kind, n, dim, seed=0, n_queries=7):
    """Vectors, and queries from the same source: some new, some among the vectors."""
    both = KINDS[kind](np.random.default_rng(seed), n + n_queries, dim).astype(np.float32)
    both[-2:] = both[: min(2, n)][:1] if n else both[-2:]
    return both[:n], both[n:]


def assert_exact(found, queries, vectors, k, metric):
    distances, indices = knn(queries, vectors, k, metric)
    assert found[0].dtype == np.float32
    assert found[1].dtype == np.int64
    np.testing.assert_array_equal(found[0], distances)
    np.testing.assert_array_equal(found[1], indices)


def assert_true_distances(found, queries, vectors, metric):
    """The distances are those of the indices, in order by (distance, index), no index twice."""
    distances, indices = found
    everything = vector_distances(queries, vectors, metric)
    np.testing.assert_array_equal(distances, np.take_along_axis(everything, indices, axis=1))
    assert all(len(set(row)) == len(row) for row in indices.tolist())
    pairs = [list(zip(*row, strict=True)) for row in zip(distances.tolist(), indices.tolist(), strict=True)]
    assert all(row == sorted(row) for row in pairs)


def hnsw(vectors, metric="l2", **options):
    index = HNSWIndex(vectors.shape[1], metric, **options)
    index.add(vectors)
    index.build()
    return index


@pytest.fixture
def early_graphs(monkeypatch):
    """Graphs from 300 rows on, so that tests need not build large ones."""
    monkeypatch.setattr(module, "_SCAN_ROWS", 300)


# ---------------------------------------------------------------- the exact scan


@both_metrics
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "dim", "k"), [(9000, 6, 12), (3000, 50, 1), (1100, 50, 1100), (40, 300, 50), (3, 1, 2)])
def test_scan_is_exact(kind, n, dim, k, metric):
    vectors, queries = draw(kind, n, dim)
    assert_exact(knn_exact(queries, vectors, k, metric), queries, vectors, k, metric)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    metric=st.sampled_from(METRICS),
    n=st.integers(0, 200),
    dim=st.integers(1, 40),
    n_queries=st.integers(0, 70),
    k=st.integers(1, 250),
    num_threads=st.sampled_from([1, 3, -1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_scan_is_exact_for_any_shape(kind, metric, n, dim, n_queries, k, num_threads, seed):
    vectors, queries = draw(kind, n, dim, seed, n_queries)
    index = FlatIndex(dim, metric)
    for part in np.array_split(vectors, 3):
        index.add(part)
    assert_exact(index.search(queries, k, num_threads), queries, vectors, k, metric)


@both_metrics
def test_scan_is_exact_across_many_blocks_and_threads(metric):
    vectors, queries = draw("clustered", 70_000, 20, n_queries=130)
    distances, indices = knn_exact(queries, vectors, 20, metric, num_threads=2)
    sample = [0, 1, 64, 65, 127, 128, 129]
    assert_exact((distances[sample], indices[sample]), queries[sample], vectors, 20, metric)
    for n_queries in (130, 3, 1):  # of many queries, the threads share the queries; of few, the rows
        for num_threads in (1, 2, 3):
            found = knn_exact(queries[:n_queries], vectors, 20, metric, num_threads)
            np.testing.assert_array_equal(found[0], distances[:n_queries])
            np.testing.assert_array_equal(found[1], indices[:n_queries])


@both_metrics
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 7, 8, 9, 50])
def test_every_instruction_set_gives_the_same_bits(kind, dim, metric):
    vectors, queries = draw(kind, 600, dim)
    subset = np.random.default_rng(0).permutation(600)[:300]
    for ids, n in ((None, 600), (subset, 300)):
        keys = np.empty((len(_vectors.available_levels()), len(queries), n), np.uint64)
        for level, own in enumerate(keys):
            _vectors.knn(level, _vectors.METRIC_CODES[metric], queries, vectors, ids, 0, n, own)
        assert (keys == keys[0]).all()


def test_the_instruction_set_can_be_forced(monkeypatch):
    used, kernel = [], _scan.knn
    monkeypatch.setattr(_scan, "knn", lambda level, *rest: (used.append(level), kernel(level, *rest)))
    for name in hamming.available_levels():
        monkeypatch.setenv("FASTHASH_SIMD", name)
        knn_exact(np.ones((1, 9), np.float32), np.ones((5, 9), np.float32), 1)
    assert used == sorted(used)
    assert used[0] == 0
    assert set(used) == set(range(len(_vectors.available_levels())))
    monkeypatch.setenv("FASTHASH_SIMD", "mmx")
    with pytest.raises(FastHashError, match="FASTHASH_SIMD"):
        knn_exact(np.ones((1, 9), np.float32), np.ones((5, 9), np.float32), 1)


@both_metrics
@pytest.mark.parametrize("kind", ["normal", "tiny", "huge"])
def test_the_distances_are_those_of_the_textbook(kind, metric):
    vectors, queries = draw(kind, 200, 21)
    points, others = queries[:-2].astype(np.longdouble), vectors.astype(np.longdouble)
    if metric == "l2":
        with np.errstate(over="ignore"):
            expected = np.sqrt(((points[:, np.newaxis] - others) ** 2).sum(axis=2)).astype(np.float32)
    else:
        lengths = [np.sqrt((some**2).sum(axis=1)) for some in (points, others)]
        expected = (1 - points @ others.T / np.multiply.outer(*lengths)).astype(np.float32)
    np.testing.assert_array_max_ulp(vector_distances(queries[:-2], vectors, metric), expected, 1)


def test_more_rows_than_a_key_can_name_are_refused(monkeypatch):
    monkeypatch.setattr(module, "_MAX_ROWS", 5)
    index = FlatIndex(2)
    index.add(np.ones((3, 2), np.float32))
    for call in (index.add, lambda six: knn_exact(six[0], six, 1)):
        with pytest.raises(ArgumentError, match=r"^vectors: expected at most 5 rows in all, got (9|6)$"):
            call(np.ones((6, 2), np.float32))
    assert index.ntotal == 3


@both_metrics
@pytest.mark.parametrize("kind", ["normal", "duplicated", "offset"])
def test_scan_restricted_to_rows(kind, metric):
    vectors, queries = draw(kind, 5000, 10)
    mask = np.random.default_rng(1).random(5000) < 0.3
    rows = np.flatnonzero(mask)
    distances, places = knn(queries, vectors[mask], 15, metric)
    index = FlatIndex(10, metric)
    index.add(vectors)
    for given_rows in (mask, rows, rows[::-1].astype(np.int32), np.repeat(rows, 2).tolist()):
        found = index.search(queries, 15, rows=given_rows)
        np.testing.assert_array_equal(found[0], distances)
        np.testing.assert_array_equal(found[1], rows[places])
    assert index.search(queries, 3, rows=[])[1].shape == (7, 0)
    for some in (slice(40, -100), slice(None, 9, -1), slice(7, 3)):
        of_slice = index.search(queries, 15, rows=some)
        np.testing.assert_array_equal(of_slice, index.search(queries, 15, rows=np.arange(5000)[some]))


@pytest.mark.parametrize(
    "rows",
    [np.ones(4, bool), [-1], [5], [0.5], [[0, 1]], ["a"], np.ones((5, 1), bool), slice("a")],
    ids=lambda rows: repr(rows),
)
def test_rows_must_be_rows(rows):
    with pytest.raises(ArgumentError, match=r"^rows: "):
        knn_exact(np.ones((1, 2), np.float32), np.ones((5, 2), np.float32), 1, rows=rows)


def test_l2_is_the_distance_itself_and_cosine_one_minus_the_similarity():
    vectors = np.array([[3, 4], [0, 5], [0, 0], [-3, -4]], np.float32)
    distances, indices = knn_exact(np.zeros((1, 2), np.float32), vectors, 4)
    assert distances.tolist() == [[0, 5, 5, 5]]
    assert indices.tolist() == [[2, 0, 1, 3]]
    distances, indices = knn_exact(np.array([6, 8], np.float32), vectors, 4, "cosine")
    np.testing.assert_allclose(distances, [[0, 0.2, 1, 2]], rtol=1e-7)
    assert indices.tolist() == [[0, 1, 2, 3]]


@both_indexes
def test_a_zero_vector_is_at_cosine_distance_one_from_everything(kind):
    index = kind(3, "cosine")
    index.add(np.array([[1, 0, 0], [0, 0, 0], [-1, 0, 0], [0, 0, 0]], np.float32))
    distances, indices = index.search(np.zeros(3, np.float32), 4)
    assert distances.tolist() == [[1, 1, 1, 1]]
    assert indices.tolist() == [[0, 1, 2, 3]]
    assert index.search(np.array([2, 0, 0], np.float32), 4)[0].tolist() == [[0, 1, 1, 2]]


def test_parallel_vectors_tie_in_cosine():
    vectors = np.outer([3, 1, 7, 1e-30, 1e30], [1, 2, 3]).astype(np.float32)
    distances, indices = knn_exact(np.array([5, 10, 15], np.float32), vectors[:3], 3, "cosine")
    assert distances.tolist() == [[0, 0, 0]]
    assert indices.tolist() == [[0, 1, 2]]


def test_a_distance_beyond_float32_is_infinite():
    distances, indices = knn_exact(np.float32([[3e38]]), np.float32([[-3e38], [3e38], [-3e38]]), 3)
    assert distances.tolist() == [[0, np.inf, np.inf]]
    assert indices.tolist() == [[1, 0, 2]]


# ---------------------------------------------------------------- what both indexes promise


@both_indexes
@both_metrics
def test_empty_index_and_empty_queries(kind, metric):
    index = kind(4, metric)
    for n in (0, 5):
        for queries in (np.empty((0, 4), np.float32), np.ones((3, 4), np.float32)):
            distances, indices = index.search(queries, 2)
            assert distances.shape == indices.shape == (len(queries), min(2, n))
            assert (distances.dtype, indices.dtype) == (np.float32, np.int64)
        index.add(np.ones((5, 4), np.float32))
        index.add(np.empty((0, 4), np.float32))
    assert (index.ntotal, len(index), index.dim, index.metric) == (10, 10, 4, metric)


@both_indexes
@early
def test_read_only_strided_and_big_endian_inputs(kind):
    vectors, queries = draw("normal", 800, 12)
    wide = np.zeros((1600, 24), np.float32)
    wide[::2, ::2] = vectors
    frozen = queries.copy()
    frozen.flags.writeable = False
    index = kind(12)
    index.add(wide[::2, ::2])
    expected = index.search(queries, 5)
    for same in (frozen, np.asfortranarray(queries), queries.astype(">f4")):
        np.testing.assert_array_equal(index.search(same, 5), expected)
    np.testing.assert_array_equal(index.search(queries[0], 5)[1], expected[1][:1])


@both_indexes
def test_vectors_are_a_read_only_view_and_a_copy_of_what_came(kind):
    mine = np.ones((3, 2), np.float32)
    index = kind(2)
    index.add(mine)
    mine[:] = 7
    view = index.vectors
    index.add(np.zeros((1000, 2), np.float32))
    assert view.tolist() == [[1, 1]] * 3
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 0
    assert index.vectors.shape == (1003, 2)


@both_indexes
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda kind: kind(0), "dim"),
        (lambda kind: kind(2.0), "dim"),
        (lambda kind: kind(2, "L2"), "metric"),
        (lambda kind: kind(2).add(np.ones((1, 2))), "vectors"),
        (lambda kind: kind(2).add(np.ones((1, 3), np.float32)), "vectors"),
        (lambda kind: kind(2).add(np.float32([[1, np.nan]])), "vectors"),
        (lambda kind: kind(2).search(np.ones((1, 3), np.float32), 1), "queries"),
        (lambda kind: kind(2).search(np.ones((1, 1, 2), np.float32), 1), "queries"),
        (lambda kind: kind(2).search(np.float32([[1, np.inf]]), 1), "queries"),
        (lambda kind: kind(2).search(np.ones((1, 2), np.float32), 0), "k"),
        (lambda kind: kind(2).search(np.ones((1, 2), np.float32), True), "k"),
        (lambda kind: kind(2).search(np.ones((1, 2), np.float32), 1, num_threads=0), "num_threads"),
        (lambda _: HNSWIndex(2, M=1), "M"),
        (lambda _: HNSWIndex(2, ef_construction=0), "ef_construction"),
        (lambda _: HNSWIndex(2, ef=0), "ef"),
        (lambda _: setattr(HNSWIndex(2), "ef", "50"), "ef"),
        (lambda _: HNSWIndex(2).build(num_threads=0), "num_threads"),
        (lambda _: knn_exact(np.ones((1, 0), np.float32), np.ones((1, 0), np.float32), 1), "vectors: dimensions"),
        (lambda _: knn_exact(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), 1, "hamming"), "metric"),
    ],
)
def test_bad_arguments_are_named(kind, call, name):
    with pytest.raises(ArgumentError, match=rf"^{name}: "):
        call(kind)


def test_a_refused_add_adds_nothing():
    index = FlatIndex(1)
    with pytest.raises(ArgumentError):
        index.add(np.float32([[1], [np.nan]]))
    assert index.ntotal == 0


# ---------------------------------------------------------------- HNSW


@both_metrics
def test_hnsw_recall_and_distances(metric):
    both = clustered(np.random.default_rng(0), 7200, 32).astype(np.float32)
    vectors, queries = both[:7000], both[7000:]
    index = hnsw(vectors, metric)
    assert index._graph.n_rows == 7000
    found = index.search(queries, 10)
    assert_true_distances(found, queries, vectors, metric)
    assert recall_at_k(found[1], knn(queries, vectors, 10, metric)[1]) >= 0.99
    one_by_one = [index.search(query, 10)[1][0] for query in queries]
    np.testing.assert_array_equal(one_by_one, found[1])


@both_metrics
@pytest.mark.parametrize("kind", KINDS)
@early
def test_hnsw_on_any_kind_of_vectors(kind, metric):
    vectors, queries = draw(kind, 1500, 8, n_queries=20)
    index = hnsw(vectors, metric)
    found = index.search(queries, 10)
    assert_true_distances(found, queries, vectors, metric)
    if (kind, metric) != ("mixed", "l2"):  # eighty orders of magnitude do not fit in nmslib's float32
        assert recall_at_k(found[1], knn(queries, vectors, 10, metric)[1]) >= 0.95
    if kind in ("duplicated", "equal"):
        assert_exact(found, queries, vectors, 10, metric)


@early
def test_hnsw_scans_when_that_is_exact_and_as_fast():
    vectors, queries = draw("normal", 2000, 30)
    index = hnsw(vectors, ef=1)
    assert_exact(index.search(queries, 41), queries, vectors, 41, "l2")  # more than a fiftieth
    assert_exact(index.search(queries, 3000), queries, vectors, 3000, "l2")
    assert_exact(index.search(queries, 5, rows=np.arange(1000)), queries, vectors[:1000], 5, "l2")
    few = hnsw(vectors[:300], ef=1)
    assert few._graph is None
    assert_exact(few.search(queries, 5), queries, vectors[:300], 5, "l2")


@early
def test_hnsw_raises_ef_to_k():
    vectors, queries = draw("clustered", 4000, 10)
    index = hnsw(vectors, ef=1)
    distances, indices = index.search(queries, 60)
    assert np.isfinite(distances).all()
    assert recall_at_k(indices, knn(queries, vectors, 60, "l2")[1]) > 0.9
    index.ef = 500
    assert recall_at_k(index.search(queries, 60)[1], knn(queries, vectors, 60, "l2")[1]) > 0.99


def without_links(graph, vectors):
    """The same nodes, each of them alone."""
    n = graph.n_nodes
    alone = np.repeat(np.arange(n, dtype=np.uint32)[:, np.newaxis], 4, axis=1)
    levels = Levels(alone, np.zeros(n, np.uint8), np.empty((0, 2), np.uint32), 0)
    return Graph(vectors, graph.metric, graph.outside, levels)


@both_metrics
@early
def test_hnsw_scans_where_the_graph_finds_too_few(metric):
    vectors, queries = draw("normal", 1000, 8)
    index = hnsw(vectors, metric)
    index._graph = without_links(index._graph, vectors)
    index.add(vectors[:100] + np.float32(1))  # enough to hide that the graph found too few
    assert_exact(index.search(queries, 12), queries, index.vectors, 12, metric)
    index.search(queries, 1)  # one node is enough for one neighbour


@both_metrics
@pytest.mark.parametrize("kind", ["normal", "zeros", "offset"])
@pytest.mark.parametrize("dim", [1, 7, 16, 50])
@early
def test_every_instruction_set_takes_the_same_way_through_a_graph(kind, dim, metric, monkeypatch):
    vectors, queries = draw(kind, 600, dim, n_queries=20)
    graph = hnsw(vectors[:500], metric, M=4, ef_construction=20)._graph
    found = []
    for name in hamming.available_levels():
        monkeypatch.setenv("FASTHASH_SIMD", name)
        found.append(graph.search(queries, vectors, 5, 7, 1))
    for keys, failed in found:
        np.testing.assert_array_equal(keys, found[0][0])
        np.testing.assert_array_equal(failed, found[0][1])


@early
def test_threads_share_the_queries_of_a_graph():
    vectors, queries = draw("clustered", 1500, 20, n_queries=100)
    index = hnsw(vectors, ef=10)
    for threads in (2, 3):
        np.testing.assert_array_equal(index.search(queries, 5, threads), index.search(queries, 5, 1))


@early
def test_hnsw_scans_for_queries_far_out():
    vectors, queries = draw("normal", 1000, 8)
    queries = queries * np.float32([[1], [1e12], [1e20], [3e37], [1], [-3e37], [1]])
    found = hnsw(vectors).search(queries, 10)
    far = [2, 3, 5]
    assert_exact([part[far] for part in found], queries[far], vectors, 10, "l2")
    assert_true_distances(found, queries, vectors, "l2")


@both_metrics
@early
def test_rows_added_after_the_graph_are_found(metric):
    vectors, _ = draw("normal", 2000, 16)
    index = hnsw(vectors[:1000], metric)
    for stop in (1001, 1200, 1300, 1301, 2000):
        index.add(vectors[index.ntotal : stop])
        new = vectors[stop - 20 : stop]
        found = index.search(new, 3)
        rows = np.arange(stop - 20, stop)
        nearest_is_itself = found[1][:, 0] == rows
        assert nearest_is_itself[rows >= index._graph.n_rows].all()  # those are scanned
        assert nearest_is_itself.mean() >= 0.8  # a graph may miss one, and no two builds are alike
        assert_true_distances(found, new, vectors[:stop], metric)
        assert index._graph.n_rows == {1001: 1000, 1200: 1000, 1300: 1000, 1301: 1301, 2000: 2000}[stop]


@both_metrics
@pytest.mark.parametrize("kind", ["clustered", "duplicated", "zeros"])
@early
def test_hnsw_save_and_load(kind, metric, tmp_path):
    vectors, queries = draw(kind, 1200, 16, n_queries=50)
    index = HNSWIndex(16, metric, M=8, ef_construction=60, ef=20)
    index.add(vectors[:1100])
    expected = index.search(queries, 10)
    index.save(tmp_path / "index")
    loaded = HNSWIndex.load(tmp_path / "index")
    assert (loaded.dim, loaded.metric, loaded.ntotal) == (16, metric, 1100)
    assert (loaded.M, loaded.ef_construction, loaded.ef) == (8, 60, 20)
    np.testing.assert_array_equal(loaded.vectors, vectors[:1100])
    for _ in range(2):
        for _ in range(2):
            for one, other in zip(loaded.search(queries, 10), expected, strict=True):
                np.testing.assert_array_equal(one, other)
        loaded.save(tmp_path / "again")  # what was loaded can be saved again
        loaded = HNSWIndex.load(tmp_path / "again")
    loaded.add(vectors[1100:])
    assert loaded._graph.n_rows == 1100
    distances, indices = loaded.search(vectors[1100:], 3)
    assert_true_distances((distances, indices), vectors[1100:], vectors, metric)
    assert (distances[:, 0] < 1e-7).all() or kind == "zeros"
    index.add(vectors[1100:])
    for one, other in zip(index.search(queries, 10), loaded.search(queries, 10), strict=True):
        np.testing.assert_array_equal(one, other)


@early
def test_save_builds_the_graph_that_a_search_would(tmp_path):
    vectors, queries = draw("normal", 1000, 16, n_queries=50)
    index = HNSWIndex(16, ef=5)
    index.add(vectors)
    index.save(tmp_path / "index")
    np.testing.assert_array_equal(HNSWIndex.load(tmp_path / "index").search(queries, 10), index.search(queries, 10))


@early
def test_no_room_for_nmslibs_file(monkeypatch):
    folder = graphs.contextlib.nullcontext("/nowhere")
    monkeypatch.setattr(graphs.tempfile, "TemporaryDirectory", lambda **_: folder)
    with pytest.raises(FastHashError, match="/nowhere"):
        hnsw(draw("normal", 400, 4)[0])


@early
def test_a_graph_of_another_form_is_refused(monkeypatch):
    vectors, _ = draw("normal", 400, 4)
    whole = []
    monkeypatch.setattr(graphs, "_parsed", lambda file, n, parsed=graphs._parsed: whole.append(file) or parsed(file, n))
    hnsw(vectors)
    for file in (whole[0][:-4], whole[0][:50], np.roll(whole[0], 4), np.concatenate([whole[0], whole[0][:4]])):
        monkeypatch.setattr(graphs.np, "fromfile", lambda *_, file=file: file)
        with pytest.raises(FastHashError, match=r"nmslib [\d.]+: its graph is not of the form"):
            hnsw(vectors)


# ---------------------------------------------------------------- files


@both_metrics
def test_flat_save_and_load(metric, tmp_path):
    vectors, queries = draw("zeros", 500, 9)
    index = FlatIndex(9, metric)
    index.save(tmp_path / "empty")
    assert FlatIndex.load(tmp_path / "empty").ntotal == 0
    index.add(vectors[:400])
    index.save(tmp_path / "index")
    loaded = FlatIndex.load(tmp_path / "index")
    loaded.add(vectors[400:])
    assert_exact(loaded.search(queries, 11), queries, vectors, 11, metric)


@both_indexes
@early
def test_damaged_files_are_refused(kind, tmp_path):
    path = tmp_path / "index"
    index = kind(8)
    index.add(draw("normal", 400, 8)[0])
    index.search(np.zeros(8, np.float32), 1)
    index.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*range(0, 64, 3), *rng.integers(0, len(whole), 100), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError, match=str(path)):
            kind.load(path)
    for length in (0, 5, 16, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptFileError, match=str(path)):
            kind.load(path)
    path.write_bytes(whole)
    assert kind.load(path).ntotal == 400


@early
def test_an_index_with_a_graph_as_nmslib_wrote_it_builds_its_own(tmp_path):
    vectors, queries = draw("clustered", 1000, 16)
    index, path = hnsw(vectors), tmp_path / "index"
    index.save(path)
    meta, arrays = read_container(path, "hnsw-index")
    old = {"vectors": arrays["vectors"], "graph": np.zeros(100, np.uint8), "outside": arrays["outside"]}
    write_container(path, "hnsw-index", {**meta, "graph_maker": "nmslib 2.1.2, little"}, old)
    loaded = HNSWIndex.load(path)
    assert loaded._graph is None
    assert recall_at_k(loaded.search(queries, 10)[1], knn(queries, vectors, 10, "l2")[1]) > 0.95


@early
def test_a_crafted_graph_is_refused(tmp_path):
    path = tmp_path / "index"
    index = HNSWIndex(4, M=3)
    index.add(draw("normal", 500, 4)[0])
    index.add(index.vectors[:20])
    index.save(path)
    meta, arrays = read_container(path, "hnsw-index")

    def changed(name, place, value):
        array = arrays[name].copy()
        array[place] = value
        return {name: array}

    bottom = np.flatnonzero(arrays["heights"] == 0)[0]
    for wrong in (
        changed("links", (3, 0), len(arrays["heights"])),
        changed("upper", (0, 0), bottom),
        changed("heights", bottom, 1),
        {"heights": np.full_like(arrays["heights"], 255), "upper": arrays["upper"][:0]},
        changed("outside", 0, 10**6),
        changed("outside", -1, 0),
        {"links": arrays["links"].astype(np.int64)},
        {"links": arrays["links"][:-1]},
        {"upper": arrays["upper"][:-1]},
        {"heights": arrays["heights"][:-1]},
        {"outside": arrays["outside"][:-1]},
    ):
        write_container(path, "hnsw-index", meta, {**arrays, **wrong})
        with pytest.raises(
            CorruptFileError, match=f"{path}: .*{next(iter(wrong))[:5]}|{path}: .*(links|upper|heights)"
        ):
            HNSWIndex.load(path)
    for wrong_meta in ({"entry": 500}, {"entry": None}, {"graph_rows": 521}, {"graph_rows": 0}):
        write_container(path, "hnsw-index", {**meta, **wrong_meta}, arrays)
        with pytest.raises(CorruptFileError, match=f"{path}: .*"):
            HNSWIndex.load(path)


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "index"
    FlatIndex(2).save(path)
    with pytest.raises(CorruptFileError, match="flat-index, not a hnsw-index"):
        HNSWIndex.load(path)
    for meta in ({}, {"dim": 0, "metric": "l2"}, {"dim": 3, "metric": "l2"}, {"dim": 2, "metric": "hamming"}):
        write_container(path, "flat-index", meta, {"vectors": np.ones((2, 2), np.float32)})
        with pytest.raises(CorruptFileError, match=str(path)):
            FlatIndex.load(path)
    with pytest.raises(FastHashError, match="nothing"):
        FlatIndex.load(tmp_path / "nothing")


# ---------------------------------------------------------------- threads, and the import of nmslib


@early
def test_a_graph_that_another_thread_has_just_built_is_not_built_again(monkeypatch):
    index, build, built = HNSWIndex(4, M=3), HNSWIndex._build, []

    class EndsNow:
        """A lock that another thread holds for a build until it is asked for."""

        def acquire(self, blocking):
            build(index, 1)
            return not blocking

        def release(self):
            pass

    index.add(draw("normal", 800, 4)[0])
    index._building = EndsNow()
    monkeypatch.setattr(HNSWIndex, "_build", lambda _, threads: built.append(threads))
    index.search(index.vectors[:1], 1)
    assert index._graph is not None
    assert not built


@both_indexes
@early
def test_search_add_and_save_from_several_threads(kind, tmp_path):
    vectors, queries = draw("clustered", 3000, 12, n_queries=30)
    index = kind(12)
    index.add(vectors[:500])
    errors = []
    done = threading.Event()

    def guarded(work, *args):
        try:
            work(*args)
        except Exception as error:
            errors.append(error)

    def search(k):
        while not done.is_set():
            distances, indices = index.search(queries, k)
            everything = vector_distances(queries, index.vectors, "l2")
            np.testing.assert_array_equal(distances, np.take_along_axis(everything, indices, axis=1))

    def add():
        for part in np.array_split(vectors[500:], 50):
            index.add(part)
        index.save(tmp_path / "index")

    searchers = [threading.Thread(target=guarded, args=(search, k)) for k in (1, 5, 15)]
    adder = threading.Thread(target=guarded, args=(add,))
    for thread in (*searchers, adder):
        thread.start()
    adder.join()
    done.set()
    for thread in searchers:
        thread.join()
    assert errors == []
    np.testing.assert_array_equal(kind.load(tmp_path / "index").vectors, vectors)
    found = index.search(queries, 10)
    assert recall_at_k(found[1], knn(queries, vectors, 10, "l2")[1]) > 0.95


def test_nmslib_is_imported_late_and_in_silence():
    program = """
import sys, numpy as np
from fasthash import index
assert "nmslib" not in sys.modules
index._SCAN_ROWS = 100
hnsw = index.HNSWIndex(4)
hnsw.add(np.random.default_rng(0).normal(size=(500, 4)).astype("f4"))
assert "nmslib" not in sys.modules
hnsw.search(hnsw.vectors, 5)
assert "nmslib" in sys.modules
print("still here", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == "still here\n"
    assert done.returncode == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [FlatIndex, HNSWIndex])
def test_range_search_finds_all_within_and_nothing_else(kind, metric):
    rng = np.random.default_rng(0)
    vectors = rng.integers(-2, 3, (900, 3)).astype(np.float32)  # many ties, zero vectors among them
    queries = vectors[:4]
    index = kind(3, metric)
    index.add(vectors)
    expected = vector_distances(queries, vectors, metric)
    for radius in (0.0, float(expected[0, 7]), 1.0, 1e9):
        limits, distances, indices = index.range_search(queries, radius)
        assert limits[0] == 0
        assert limits[-1] == len(distances) == len(indices)
        for i, (start, stop) in enumerate(pairwise(limits)):
            order = np.lexsort((np.arange(900), expected[i]))
            inside = order[expected[i][order] <= np.float32(radius)]
            np.testing.assert_array_equal(indices[start:stop], inside)
            np.testing.assert_array_equal(distances[start:stop], expected[i][inside])


def test_range_search_of_nothing_and_with_a_wrong_radius():
    index = FlatIndex(3)
    assert [part.tolist() for part in index.range_search(np.zeros((2, 3), np.float32), 1.0)] == [[0, 0, 0], [], []]
    for radius in (-1, "1", np.nan, None):
        with pytest.raises(ArgumentError, match="radius"):
            index.range_search(np.zeros((1, 3), np.float32), radius)


def test_nodes_under_other_names_are_the_same_graph():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(900, 6)).astype("f4")
    levels = Graph.build(vectors, "l2", 4, 20, 2).levels
    order = rng.permutation(len(vectors))
    other = graphs._renumbered(levels, order)
    assert other.entry == order[levels.entry]
    np.testing.assert_array_equal(other.heights[order], levels.heights)
    np.testing.assert_array_equal(other.links[order], order[levels.links])
    back = graphs._renumbered(other, np.argsort(order))
    for name in ("links", "heights", "upper"):
        np.testing.assert_array_equal(getattr(back, name), getattr(levels, name))
    assert levels.heights.max() > 1
