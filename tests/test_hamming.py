import ctypes
import functools
import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import hamming_distances, hamming_knn, hamming_range

from fasthash import hamming
from fasthash.codes import pack_bits
from fasthash.errors import ArgumentError, FastHashError
from fasthash.hamming import (
    available_levels,
    count_hamming,
    knn_hamming,
    pairwise_hamming,
    range_hamming,
    simd_level,
)

# Every level, and the flags by which the kernel of the operating system says that the processor has it.
LEVEL_FLAGS = {
    "scalar": set(),
    "popcnt": {"sse4_2", "popcnt"},
    "avx2": {"sse4_2", "popcnt", "avx2"},
    "avx512": {"avx2", "avx512f", "avx512bw"},
    "avx512vpopcntdq": {"avx512f", "avx512bw", "avx512_vpopcntdq"},
    "neon": {"asimd"},
}


def cpu_flags():
    if "FASTHASH_CPU_FLAGS" in os.environ:  # those of an emulated processor: the kernel tells the host's
        return set(os.environ["FASTHASH_CPU_FLAGS"].split())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split(":")[1].split()}


@pytest.fixture(params=LEVEL_FLAGS)
def level(request, monkeypatch):
    """Force each level in turn. One that the processor promises must be there; one it lacks is skipped."""
    if request.param not in available_levels():
        assert not LEVEL_FLAGS[request.param] <= cpu_flags(), "the processor has it, and it is not offered"
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv("FASTHASH_SIMD", request.param)
    return request.param


@pytest.fixture
def eager_threads(monkeypatch):
    """Let the smallest input be shared out among threads."""
    monkeypatch.setattr(hamming, "_WORTH_A_THREAD", 1)


def random_codes(seed, n, n_bits, distinct=None):
    """Codes of n_bits; from few distinct ones where there should be ties."""
    rng = np.random.default_rng(seed)
    codes = pack_bits(rng.integers(0, 2, (distinct or n, n_bits)).astype(bool))
    return codes if distinct is None else codes[rng.integers(0, distinct, n)]


def some_rows(seed, n):
    """Nothing, a slice, a mask, row numbers with gaps, and runs of neighbours; and the rows that they mean."""
    rng = np.random.default_rng(seed)
    run = np.arange(n)[n // 4 : n // 2]
    ways = [
        None,
        slice(n // 3, -1 - n // 5),
        slice(None, None, -3),
        rng.integers(0, 2, n).astype(bool),
        rng.permutation(n)[: n // 2].astype(np.uint16),
        np.concatenate([run[::-1], run[: n // 9] + n // 2]),
        run[:0],
    ]
    rows = ways[seed % len(ways)]
    chosen = np.arange(n) if rows is None else np.arange(n)[rows]
    return rows, np.unique(chosen)


cases = given(
    seed=st.integers(0, 2**32 - 1),
    n_bits=st.one_of(st.sampled_from([8, 16, 32, 50, 64, 72, 128, 192, 256, 264, 512, 520]), st.integers(1, 700)),
    n=st.one_of(st.integers(0, 70), st.integers(500, 2300)),  # a block is 64 to 1024 codes
    n_queries=st.sampled_from([0, 1, 3, 8, 19]),  # from 8 on they share a tile
    distinct=st.sampled_from([None, 1, 5]),
    num_threads=st.sampled_from([1, 3]),
)
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cases
@few
@pytest.mark.usefixtures("level", "eager_threads")
def test_knn_is_that_of_the_oracle(seed, n_bits, n, n_queries, distinct, num_threads):
    codes = random_codes(seed, n, n_bits, distinct)
    queries = random_codes(seed + 1, n_queries, n_bits)
    rows, looked_at = some_rows(seed, n)
    few_of_them = len(looked_at) // 64  # by heap; more of them are counted
    for k in {seed % (few_of_them + 1), 1 + seed % (len(looked_at) + 5)}:
        distances, indices = knn_hamming(queries, codes, k, num_threads, rows)
        assert (distances.dtype, indices.dtype) == (np.int32, np.int64)
        expected_distances, expected_indices = hamming_knn(queries, codes[looked_at], k)
        np.testing.assert_array_equal(distances, expected_distances)
        np.testing.assert_array_equal(indices, looked_at[expected_indices])


@cases
@few
@pytest.mark.usefixtures("level", "eager_threads")
def test_range_is_that_of_the_oracle(seed, n_bits, n, n_queries, distinct, num_threads):
    codes = random_codes(seed, n, n_bits, distinct)
    queries = random_codes(seed + 1, n_queries, n_bits)
    rows, looked_at = some_rows(seed, n)
    radius = seed % (n_bits + 3)
    limits, distances, indices = range_hamming(queries, codes, radius, num_threads, rows)
    assert (limits.dtype, distances.dtype, indices.dtype) == (np.int64, np.int32, np.int64)
    expected = hamming_range(queries, codes[looked_at], radius)
    assert limits.tolist() == np.cumsum([0, *(len(found) for found, _ in expected)]).tolist()
    for start, stop, (expected_distances, expected_indices) in zip(limits, limits[1:], expected, strict=False):
        np.testing.assert_array_equal(distances[start:stop], expected_distances)
        np.testing.assert_array_equal(indices[start:stop], looked_at[expected_indices])


@cases
@few
@pytest.mark.usefixtures("level", "eager_threads")
def test_pairwise_and_counts_are_those_of_the_oracle(seed, n_bits, n, n_queries, distinct, num_threads):
    codes = random_codes(seed, n, n_bits, distinct)
    queries = random_codes(seed + 1, n_queries, n_bits)
    labels = np.random.default_rng(seed).integers(0, 1 + seed % 4, n)
    distances = hamming_distances(queries, codes)
    measured = pairwise_hamming(queries, codes, num_threads)
    assert measured.dtype == np.int32
    np.testing.assert_array_equal(measured, distances)
    counts = count_hamming(queries, codes, labels, num_threads)
    assert counts.dtype == np.int64
    width, n_labels = 8 * codes.shape[1] + 1, labels.max(initial=-1) + 1
    assert counts.shape == (n_queries, n_labels, width)
    for row, of_query in zip(distances, counts, strict=True):
        for label in range(n_labels):
            assert of_query[label].tolist() == np.bincount(row[labels == label], minlength=width).tolist()
    np.testing.assert_array_equal(count_hamming(queries, codes, num_threads=num_threads), counts.sum(axis=1))


@functools.cache
def answers(n_bits):
    codes, queries = random_codes(n_bits, 330, n_bits), random_codes(n_bits + 1, 9, n_bits)
    return codes, queries, hamming_knn(queries, codes, 330)


@pytest.mark.usefixtures("level")
def test_every_length():
    """One query and many, by heap (k = 5) and by counting (k = 330)."""
    for n_bits in [*range(1, 301), *range(450, 600, 7)]:
        codes, queries, (distances, indices) = answers(n_bits)
        for some in (slice(1), slice(9)):
            for k in (5, 330):
                found = knn_hamming(queries[some], codes, k)
                np.testing.assert_array_equal(found[0], distances[some, :k], f"{n_bits} bits, {some}, k = {k}")
                np.testing.assert_array_equal(found[1], indices[some, :k], f"{n_bits} bits, {some}, k = {k}")


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("n_bits", [248, 256, 264, 512])
@pytest.mark.parametrize("nearest", [1, 200, 247])
def test_limits_about_255(n_bits, nearest):
    """The sums of bytes that many queries are given stop at 255 or begin anew: codes come nearer, past it, then go."""
    apart = np.append(np.linspace(n_bits, nearest, 3000), [n_bits] * 9).astype(int)
    codes = pack_bits(np.arange(n_bits) < apart[:, None])
    queries = np.zeros((8, codes.shape[1]), np.uint8)
    queries[::2, -1] = 255
    np.testing.assert_array_equal(knn_hamming(queries, codes, 7), hamming_knn(queries, codes, 7))


@pytest.mark.usefixtures("level")
def test_the_longest_codes_all_bits_apart():
    codes = np.repeat(np.array([[255], [0]], np.uint8), 512, axis=1)
    distances, indices = knn_hamming(codes[1], codes, 2)
    assert (distances.tolist(), indices.tolist()) == ([[0, 4096]], [[1, 0]])
    assert range_hamming(codes[1], codes, 4095)[2].tolist() == [1]
    assert range_hamming(codes[1], codes, 10**30)[2].tolist() == [1, 0]


@pytest.mark.usefixtures("level", "eager_threads")
def test_ties_go_to_the_lowest_index():
    codes = np.zeros((3000, 8), np.uint8)
    for num_threads in (1, 3):
        distances, indices = knn_hamming(np.full(8, 255, np.uint8), codes, 700, num_threads)
        assert (distances == 64).all()
        assert indices.tolist() == [list(range(700))]


@pytest.mark.usefixtures("level")
def test_nearer_and_nearer_codes():
    """The worst order for a threshold: every code is nearer than all before it."""
    codes = pack_bits(np.tri(257, 256, dtype=bool)[::-1])
    distances, indices = knn_hamming(np.zeros(32, np.uint8), codes, 20)
    assert distances.tolist() == [[*range(1, 21)]]
    np.testing.assert_array_equal((distances, indices), hamming_knn(np.zeros((1, 32), np.uint8), codes, 20))


@pytest.mark.usefixtures("level")
def test_strided_and_read_only_arrays():
    wide = random_codes(3, 400, 8 * 18)
    codes, queries = wide[::2, 1::2], wide[1::50, ::-2]
    expected = hamming_knn(queries, codes, 5)
    np.testing.assert_array_equal(knn_hamming(queries, codes, 5), expected)
    columns = np.asfortranarray(codes)
    np.testing.assert_array_equal(knn_hamming(np.asfortranarray(queries), columns, 5), expected)
    codes, queries = codes.copy(), queries.copy()
    codes.flags.writeable = queries.flags.writeable = False
    np.testing.assert_array_equal(knn_hamming(queries, codes, 5), expected)
    assert range_hamming(queries, codes, 0)[0][-1] == (hamming_distances(queries, codes) == 0).sum()


class GuardedPages:
    """Memory between two pages that must not be touched; a read past either end kills the process."""

    def __init__(self, size):
        page = mmap.PAGESIZE
        self.size = -(-size // page) * page
        self.map = mmap.mmap(-1, self.size + 2 * page)
        self.memory = np.frombuffer(self.map, np.uint8)
        mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for start in (0, page + self.size):
            assert mprotect(self.memory.ctypes.data + start, page, 0) == 0  # 0 is PROT_NONE
        self.memory = self.memory[page : page + self.size]

    def hold(self, array, at_end):
        start = self.size - array.size if at_end else 0
        place = self.memory[start : start + array.size].reshape(array.shape)
        place[...] = array
        return place


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
def test_no_byte_outside_the_arrays_is_read(at_end):
    code_pages, query_pages = GuardedPages(1 << 16), GuardedPages(8 * 512)
    for n_bytes in [*range(1, 35), 63, 64, 65, 96, 127, 129, 511, 512]:
        for n in (1, 2, 7, 33, 100, 321):
            if n * n_bytes > code_pages.size:
                continue
            codes = code_pages.hold(random_codes(n, n, 8 * n_bytes), at_end)
            queries = query_pages.hold(random_codes(n + 1, 8, 8 * n_bytes), at_end)
            for asked in (queries, queries[:1] if not at_end else queries[-1:]):
                expected = hamming_distances(asked, codes)
                assert (knn_hamming(asked, codes, 1, 1)[0] == expected.min(axis=1, keepdims=True)).all()
                assert (knn_hamming(asked, codes, n, 1)[0] == np.sort(expected)).all()
                assert (pairwise_hamming(asked, codes, 1) == expected).all()
                ends = np.unique([0, n // 2, n - 1])
                assert (knn_hamming(asked, codes, 1, 1, ends)[0][:, 0] == expected[:, ends].min(axis=1)).all()
            assert len(range_hamming(queries[0], codes, 8 * n_bytes, 1)[1]) == n


@pytest.mark.usefixtures("eager_threads")
def test_many_threads_and_slices_agree():
    codes, queries = random_codes(5, 5000, 64, distinct=40), random_codes(6, 64, 64)
    for some in (queries, queries[:3]):
        expected = hamming_knn(some, codes, 300)
        for num_threads in (-1, 1, 2, 7):
            np.testing.assert_array_equal(knn_hamming(some, codes, 300, num_threads), expected)


def test_a_real_share_for_each_thread():
    codes = np.random.default_rng(7).integers(0, 256, (2_200_000, 8), np.uint8)
    one, two = (knn_hamming(codes[123_456], codes, 10, threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one[0][0, 0], one[1][0, 0]) == (0, 123_456)


def test_level_is_the_best_unless_forced(level, monkeypatch):
    assert simd_level() == level
    for unset in ("", None):
        monkeypatch.delenv("FASTHASH_SIMD", raising=False)
        if unset is not None:
            monkeypatch.setenv("FASTHASH_SIMD", unset)
        assert simd_level() == available_levels()[-1]


@pytest.mark.parametrize("name", ["sse9", "AVX2", "neon avx2"])
def test_an_unknown_level_is_refused(name, monkeypatch):
    monkeypatch.setenv("FASTHASH_SIMD", name)
    for call in (simd_level, lambda: knn_hamming(np.zeros((1, 8), np.uint8), np.zeros((1, 8), np.uint8), 1)):
        with pytest.raises(FastHashError, match=f"FASTHASH_SIMD: '{name}' is not available here; available: scalar"):
            call()


CODES = np.zeros((3, 8), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: knn_hamming(CODES.astype(np.int64), CODES, 1), "queries: expected dtype uint8, got int64"),
        (lambda: knn_hamming(CODES[:, :7], CODES, 1), "queries: expected 8 bytes, got 7"),
        (lambda: knn_hamming(CODES, CODES.view(np.uint64), 1), "codes: expected dtype uint8, got uint64"),
        (lambda: knn_hamming(CODES, CODES[None], 1), "codes: expected shape"),
        (lambda: knn_hamming(CODES[:, :0], CODES[:, :0], 1), "codes: expected 1 to 512 bytes a code, got 0"),
        (lambda: knn_hamming(CODES, np.zeros((1, 513), np.uint8), 1), "codes: expected 1 to 512 bytes a code, got 513"),
        (lambda: knn_hamming(CODES, CODES, -1), "k: expected an integer at least 0, got -1"),
        (lambda: knn_hamming(CODES, CODES, 1.0), "k: expected an integer, got 1.0"),
        (lambda: knn_hamming(CODES, CODES, 1, 0), "num_threads: expected an integer at least 1, got 0"),
        (lambda: knn_hamming(CODES, CODES, 1, rows=[0, 3]), r"rows: expected row numbers in \[0, 3\), got 0 to 3"),
        (lambda: knn_hamming(CODES, CODES, 1, rows=[-1]), r"rows: expected row numbers in \[0, 3\), got -1 to -1"),
        (lambda: knn_hamming(CODES, CODES, 1, rows=[np.nan]), "rows: expected integers of shape"),
        (lambda: knn_hamming(CODES, CODES, 1, rows=np.ones(2, bool)), r"rows: expected a mask of shape \(3,\), got"),
        (lambda: knn_hamming(CODES, CODES, 1, rows=slice(0, 1.5)), "rows: expected a slice of integers"),
        (lambda: range_hamming(CODES, CODES, 1, rows=slice(0, 3, 0)), "rows: expected a slice of integers"),
        (lambda: range_hamming(CODES, CODES, 1, rows=1), r"rows: expected integers of shape \(m,\) or a mask"),
        (lambda: pairwise_hamming(CODES, CODES[:, :7]), "a: expected 7 bytes, got 8"),
        (lambda: pairwise_hamming(CODES, CODES.astype(float)), "b: expected dtype uint8, got float64"),
        (lambda: count_hamming(CODES[:, :7], CODES), "queries: expected 8 bytes, got 7"),
        (lambda: count_hamming(CODES, CODES, [0, 1]), r"labels: expected integers of shape \(3,\), got"),
        (lambda: count_hamming(CODES, CODES, [0, 1, 0.5]), r"labels: expected integers of shape \(3,\), got float64"),
        (lambda: count_hamming(CODES, CODES, [0, 1, -1]), r"labels: expected integers in \[0, 65536\), got -1 to 1"),
        (lambda: range_hamming(CODES, CODES, -1), "radius: expected an integer at least 0, got -1"),
        (lambda: range_hamming(CODES, CODES, True), "radius: expected an integer, got True"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.usefixtures("eager_threads")
def test_a_forked_child_can_search():
    codes = random_codes(17, 5000, 64)
    expected = knn_hamming(codes[:3], codes, 4, 2)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(knn_hamming(codes[:3], codes, 4, 2), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
