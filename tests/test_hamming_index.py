"""The index of codes: whatever its method and history, its answers are those of the oracle on the codes it holds."""

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import hamming_distances, hamming_knn

from fasthash import _segments, _storage, hamming_index
from fasthash._segments import Layout
from fasthash.codes import pack_bits
from fasthash.errors import ArgumentError, CorruptFileError, FastHashError
from fasthash.hamming import knn_hamming, range_hamming
from fasthash.hamming_index import HammingIndex, available_levels

LENGTHS = st.one_of(st.sampled_from([1, 8, 16, 17, 24, 32, 50, 64, 72, 128, 192, 256, 264]), st.integers(1, 300))
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=available_levels())
def level(request, monkeypatch):
    monkeypatch.setenv("FASTHASH_SIMD", request.param)
    return request.param


@pytest.fixture
def small_segments(monkeypatch):
    """Tables over the smallest archives, several segments of them, threads for the fewest queries."""
    monkeypatch.setattr(_segments, "TAIL", 40)
    monkeypatch.setattr(_segments, "_MERGED", 1)
    monkeypatch.setattr(hamming_index, "_QUERIES_A_JOB", 3)
    monkeypatch.setattr(hamming_index, "_RANK_SHARE", 1)


@pytest.fixture(params=["tables", "budget of some", "scan"])
def budget(request, monkeypatch):
    """Answers by tables alone, by both, by the scan alone."""
    entries = {"tables": 2**60, "budget of some": 2000, "scan": 0}[request.param]
    monkeypatch.setattr(hamming_index, "_budget", lambda *_: entries)
    return request.param


def make_codes(kind, seed, n, n_bits):
    """(codes, queries): bits at random, near a few centres, mostly constant, all equal, or of few distinct codes."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2, ({"equal": 1, "few": 3}.get(kind, 9), n_bits)).astype(bool)
    noise = {"random": 0.5, "clustered": 0.04, "skewed": 0.5, "equal": 0.0, "few": 0.0}[kind]
    bits = centres[rng.integers(0, len(centres), n + 7)] ^ (rng.random((n + 7, n_bits)) < noise)
    if kind == "skewed":
        bits[:, : 2 * n_bits // 3] &= rng.random((n + 7, 1)) < 0.05
    bits[n:] ^= rng.random((7, n_bits)) < 0.03
    return pack_bits(bits[:n]), pack_bits(bits[n:])


def method_for(n_bits):
    return "buckets" if n_bits <= 16 else "multi-index"


def filled(n_bits, codes, seed, method=None, compact=False):
    """An index that got the codes in a few parts."""
    index = HammingIndex(n_bits, method or method_for(n_bits), compact)
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(codes) + 1, 4))
    for part in np.split(codes, cuts):
        index.add(part)
    return index


def expected_hits(query, held, count=None, radius=None):
    """Oracle on {id: code}: the hits of one query as (distance, id), in order."""
    ids = np.array(sorted(held), np.int64)
    codes = np.array([held[i] for i in ids.tolist()], np.uint8).reshape(len(ids), len(query))
    distances = hamming_distances(query[np.newaxis], codes)[0]
    hits = sorted(zip(distances.tolist(), ids.tolist(), strict=True))
    return [hit for hit in hits if radius is None or hit[0] <= radius][:count]


def assert_answers(index, queries, held, k, radius):
    distances, ids = index.search(queries, k, 2)
    assert (distances.dtype, ids.dtype) == (np.int32, np.int64)
    assert distances.shape == ids.shape == (len(queries), min(k, len(held)))
    limits, range_distances, range_ids = index.range_search(queries, radius, 2)
    assert (limits.dtype, range_distances.dtype, range_ids.dtype) == (np.int64, np.int32, np.int64)
    for i, query in enumerate(queries):
        assert list(zip(distances[i].tolist(), ids[i].tolist(), strict=True)) == expected_hits(query, held, count=k)
        some = slice(limits[i], limits[i + 1])
        found = list(zip(range_distances[some].tolist(), range_ids[some].tolist(), strict=True))
        assert found == expected_hits(query, held, radius=radius)


@given(
    seed=st.integers(0, 2**32 - 1),
    n_bits=LENGTHS,
    n=st.one_of(st.integers(0, 60), st.integers(200, 600)),
    kind=st.sampled_from(["random", "clustered", "skewed", "equal", "few"]),
    compact=st.booleans(),
)
@settings(few, max_examples=12)
@pytest.mark.usefixtures("level", "small_segments", "budget")
def test_answers_are_those_of_the_oracle(seed, n_bits, n, kind, compact):
    codes, queries = make_codes(kind, seed, n, n_bits)
    index = filled(n_bits, codes, seed, compact=compact)
    held = dict(enumerate(codes))
    k = 1 + seed % (20 if seed % 3 else n + 3)
    assert_answers(index, queries, held, k, seed % (n_bits // 3 + 2))
    start, stop = sorted(np.random.default_rng(seed).integers(0, n + 1, 2).tolist())
    rows = slice(start, stop)
    np.testing.assert_array_equal(index.search(queries, k, rows=rows), knn_hamming(queries, codes, k, rows=rows))
    for got, wanted in zip(
        index.range_search(queries, 3, rows=rows), range_hamming(queries, codes, 3, rows=rows), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("n_bits", [8, 24, 40, 64, 65, 200])
def test_tables_answer_without_a_scan(n_bits, monkeypatch):
    """With any budget no query is left over: what the last test saw was the tables' own work."""
    monkeypatch.setattr(hamming_index, "_budget", lambda *_: 2**60)
    codes, queries = make_codes("clustered", 1, 500, n_bits)
    expected = hamming_knn(queries, codes, 9)
    index = filled(n_bits, codes, 1)
    index.search(queries, 9)
    monkeypatch.setattr(hamming_index.hamming, "_knn", None)
    np.testing.assert_array_equal(index.search(queries, 9), expected)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add own ids", "remove", "search", "reload"]),
        st.integers(0, 2**32 - 1),
        st.integers(0, 120),
    ),
    min_size=2,
    max_size=14,
)


@given(steps=STEPS, n_bits=st.sampled_from([8, 20, 64, 100]), compact=st.booleans(), mmap=st.booleans())
@settings(few, max_examples=25)
@pytest.mark.usefixtures("small_segments")
def test_any_history_leaves_what_a_dictionary_would_hold(steps, n_bits, compact, mmap, tmp_path):
    index, held, next_id = HammingIndex(n_bits, compact=compact), {}, 0
    for action, seed, n in steps:
        rng = np.random.default_rng(seed)
        codes, queries = make_codes("clustered", seed % 3, n, n_bits)
        if action == "add":
            index.add(codes)
            held |= zip(range(next_id, next_id + n), codes, strict=True)
            next_id += n
        elif action == "add own ids":
            free = np.setdiff1d(np.arange(next_id + 400), list(held))
            ids = rng.permutation(free)[:n] if seed % 2 else next_id + np.cumsum(rng.integers(1, 3, n))
            index.add(codes, ids)
            held |= zip(ids.tolist(), codes, strict=True)
            next_id = max([next_id, *(i + 1 for i in ids.tolist())])
        elif action == "remove":
            gone = rng.permutation(list(held))[: n // 2].astype(np.int64)
            index.remove(gone)
            for i in gone.tolist():
                del held[i]
        elif action == "reload":
            index.save(tmp_path / "index")
            index = HammingIndex.load(tmp_path / "index", mmap)
        else:
            assert_answers(index, queries[:2], held, 1 + seed % 12, seed % 9)
        assert index.ntotal == len(index) == len(held)
    assert sorted(index.ids.tolist()) == sorted(held)
    for i, code in zip(index.ids.tolist(), index.codes, strict=True):
        assert np.array_equal(held[i], code)
    assert_answers(index, queries[:2], held, 7, 5)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("n_bits", [8, 64])
def test_rows_are_live_codes_in_order_of_addition(n_bits):
    codes, queries = make_codes("clustered", 2, 400, n_bits)
    index = filled(n_bits, codes, 2)
    index.remove(np.arange(0, 90, 3))
    codes, ids = index.codes, index.ids
    mask = np.random.default_rng(3).random(len(codes)) < 0.4
    for rows in (slice(20, 300), slice(None, None, -3), slice(5, 5), mask, np.flatnonzero(mask)[::-1], [], [7, 7]):
        distances, found = index.search(queries, 12, rows=rows)
        wanted = knn_hamming(queries, codes, 12, rows=rows)
        np.testing.assert_array_equal((distances, found), (wanted[0], ids[wanted[1]]))
        limits, distances, found = index.range_search(queries, 2, rows=rows)
        wanted = range_hamming(queries, codes, 2, rows=rows)
        for got, expected in zip((limits, distances, found), (wanted[0], wanted[1], ids[wanted[2]]), strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("method", ["auto", "scan", "buckets", "multi-index"])
def test_methods_agree(method):
    for n_bits in (8, 16) if method == "buckets" else (17, 64) if method == "multi-index" else (8, 64, 300):
        codes, queries = make_codes("clustered", 4, 10_000, n_bits)
        index = HammingIndex(n_bits, method)
        index.add(codes)
        np.testing.assert_array_equal(index.search(queries, 50), knn_hamming(queries, codes, 50))
        np.testing.assert_array_equal(index.range_search(queries, 4)[2], range_hamming(queries, codes, 4)[2])
        assert bool(index._state.segments) == (method != "scan" and n_bits <= 256)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("n_bits", [8, 16, 20, 32, 40, 64, 72, 128, 256, 300])
def test_memory_is_bounded_by_the_bytes_of_the_codes(n_bits, compact):
    codes = make_codes("random", 5, 120_000, n_bits)[0]
    index = HammingIndex(n_bits, "auto" if n_bits <= 16 else "multi-index", compact)
    for n in (100_000, 5_000, 15_000):
        index.add(codes[index.ntotal : index.ntotal + n])
        state = index._state
        tables = [table for segment in state.segments for table in segment.tables]
        real = sum(part.nbytes for t in tables for part in (t.offsets, t.rows, t.words) if part is not None)
        assert index.nbytes == index._buffer.nbytes + real
        assert index.nbytes <= (3 if compact else 6) * index.codes.nbytes
    assert compact or real


@pytest.mark.parametrize("n_bits", range(1, 1100, 7))
def test_keys_share_no_bit_and_words_lie_inside_the_code(n_bits):
    for count in (1, 5, 1000, 10**7, 2**31):
        for compact in (False, True):
            end = 0
            for first_bit, key_bits, word_at, width in Layout(n_bits, compact).of(count):
                assert end <= first_bit
                assert key_bits >= 1
                end = first_bit + key_bits
                assert end <= n_bits
                assert 0 <= word_at <= word_at + width <= -(-n_bits // 8)


@pytest.mark.usefixtures("small_segments")
def test_adding_builds_few_segments_and_few_of_them_anew(monkeypatch):
    built = []
    monkeypatch.setattr(_segments, "build", lambda _, codes: built.append(len(codes)))
    monkeypatch.setattr(_segments, "_MERGED", 3)
    index, buffers = HammingIndex(24), set()
    for code in make_codes("random", 6, 4000, 24)[0]:
        index.add(code)
        buffers.add(len(index._buffer))
        assert len(index._state.segments) <= 6
    assert len(buffers) <= 6
    assert sum(built) <= 25 * 4000
    assert [segment.first for segment in index._state.segments[1:]] == [s.stop for s in index._state.segments[:-1]]
    assert 4000 - 40 < index._state.segments[-1].stop <= 4000


@pytest.mark.usefixtures("small_segments")
def test_removed_rows_give_their_memory_back():
    codes, queries = make_codes("random", 7, 600, 64)
    index = filled(64, codes, 7)
    for start in range(0, 500, 50):
        index.remove(np.arange(start, start + 50))
    assert len(index._buffer) <= 100 * 4 / 3
    assert index.ids.tolist() == list(range(500, 600))
    np.testing.assert_array_equal(index.search(queries, 3)[1], hamming_knn(queries, codes[500:], 3)[1] + 500)
    index.add(codes[:1])
    assert index.ids[-1] == 600  # numbers are not given twice
    index.remove(index.ids)
    assert [part.shape for part in index.search(queries, 3)] == [(7, 0), (7, 0)]
    index.add(codes[:2])
    assert index.ids.tolist() == [601, 602]


def test_what_is_added_is_copied_and_what_is_shown_cannot_be_written():
    codes = make_codes("random", 8, 5, 64)[0]
    index = HammingIndex(64)
    index.add(codes)
    query = codes[3].copy()
    codes[:] = 0
    assert index.search(query, 1)[0] == 0
    for shown in (index.codes, index.ids):
        with pytest.raises(ValueError, match="read-only"):
            shown[0] = 0


def test_an_empty_index():
    index, queries = HammingIndex(50), make_codes("random", 9, 4, 50)[0]
    assert [part.shape for part in index.search(queries, 3)] == [(4, 0), (4, 0)]
    assert [part.tolist() for part in index.range_search(queries, 3)] == [[0] * 5, [], []]
    index.add(queries[:0])
    index.remove([])
    index.add(queries)
    assert [part.shape for part in index.search(queries[:0], 3)] == [(0, 3), (0, 3)]
    assert [part.tolist() for part in index.range_search(queries[:0], 3)] == [[0], [], []]


@pytest.mark.usefixtures("small_segments")
def test_searching_while_another_thread_adds_and_removes():
    """Every search answers for a state the index was in while it ran."""
    batch, (codes, queries) = 40, make_codes("clustered", 10, 4000, 64)
    index = HammingIndex(64)
    states = [0]

    def change():
        for start in range(0, len(codes), batch):
            index.add(codes[start : start + batch])
            index.remove([start])
            states.append(start + batch)

    changer = threading.Thread(target=change)
    changer.start()
    searched = 0
    while changer.is_alive() or searched == 0:
        done = len(states) - 1
        distances, found = index.search(queries[:1], 10, 2)
        possible = []
        for stop in range(states[done], min(states[-1] + 2 * batch, len(codes)) + 1, batch):
            held = dict(enumerate(codes[:stop]))
            for gone in range(0, stop, batch):
                if gone + batch == stop:
                    possible.append(expected_hits(queries[0], held, count=10))  # before its first row is removed
                del held[gone]
            possible.append(expected_hits(queries[0], held, count=10))
        assert list(zip(distances[0].tolist(), found[0].tolist(), strict=True)) in possible
        searched += 1
    changer.join()
    assert index.ntotal == len(codes) - len(codes) // batch


CODES = np.zeros((3, 8), np.uint8)


def index_of(ids=(5, 6, 9)):
    index = HammingIndex(64)
    index.add(CODES, ids)
    return index


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HammingIndex(0), r"n_bits: expected an integer in \[1, 4096\], got 0"),
        (lambda: HammingIndex(4097), r"n_bits: expected an integer in \[1, 4096\], got 4097"),
        (lambda: HammingIndex(64, "fast"), "method: expected one of auto, scan, buckets, multi-index, got 'fast'"),
        (lambda: HammingIndex(17, "buckets"), "method: buckets are for codes of up to 16 bits, got 17"),
        (lambda: HammingIndex(16, "multi-index"), "method: multi-index is for codes of more than 16 bits, got 16"),
        (lambda: HammingIndex(64, compact=1), "compact: expected True or False, got 1"),
        (lambda: HammingIndex(64).add(CODES[:, :7]), "codes: expected 8 bytes, got 7"),
        (lambda: HammingIndex(60).add(~CODES), "codes: expected zero in the last 4 bits of 60-bit codes; row 0"),
        (lambda: HammingIndex(60).search(~CODES, 1), "queries: expected zero in the last 4 bits"),
        (lambda: HammingIndex(60).range_search(~CODES, 1), "queries: expected zero in the last 4 bits"),
        (lambda: HammingIndex(64).search(CODES, -1), "k: expected an integer at least 0, got -1"),
        (lambda: HammingIndex(64).search(CODES, 1, 0), "num_threads: expected an integer at least 1, got 0"),
        (lambda: HammingIndex(64).range_search(CODES, -1), "radius: expected an integer at least 0, got -1"),
        (lambda: index_of().search(CODES, 1, rows=[3]), r"rows: expected row numbers in \[0, 3\), got 3 to 3"),
        (lambda: index_of([1, 2]), r"ids: expected integers of shape \(3,\), got int64 of shape \(2,\)"),
        (lambda: index_of([1.0, 2.0, 3.0]), "ids: expected integers of shape .3,., got float64"),
        (lambda: index_of([-1, 2, 3]), r"ids: expected integers in \[0, 2\^63 - 2\], got -1 to 3"),
        (lambda: index_of(np.array([2**63, 2, 3], np.uint64)), r"ids: expected integers in \[0, 2\^63 - 2\]"),
        (lambda: index_of([4, 4, 3]), "ids: expected none twice, got 4 more than once"),
        (lambda: index_of().add(CODES, [7, 6, 5]), "ids: expected ids not in use, got 6, 5"),
        (lambda: index_of().remove([5, 7, 8]), "ids: expected ids in use, got 7, 8"),
        (lambda: index_of().remove(range(10, 20)), "ids: expected ids in use, got 10, 11, 12, 13, 14 and 5 more"),
        (lambda: HammingIndex(64).remove(0), "ids: expected ids in use, got 0"),
        (lambda: index_of().remove([[5]]), r"ids: expected integers of shape \(m,\)"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_a_refused_change_changes_nothing():
    index = index_of()
    for refused in (lambda: index.add(CODES, [1, 2, 5]), lambda: index.remove([5, 7])):
        with pytest.raises(ArgumentError):
            refused()
    assert index.ids.tolist() == [5, 6, 9]
    index.add(CODES[0])
    assert index.ids.tolist() == [5, 6, 9, 10]


# ---------------------------------------------------------------- files


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("n_bits", [8, 64, 100, 300])
def test_loading_builds_nothing_and_changes_nothing(tmp_path, monkeypatch, n_bits, mmap):
    codes, queries = make_codes("clustered", 11, 500, n_bits)
    index = filled(n_bits, codes, 11, "auto" if n_bits == 300 else None)
    index.remove([3, 400])
    index.save(tmp_path / "index")
    with monkeypatch.context() as patched:
        patched.setattr(_segments, "build", None)
        loaded = HammingIndex.load(tmp_path / "index", mmap)
    assert (loaded.n_bits, loaded.method, loaded.compact) == (n_bits, index.method, False)
    np.testing.assert_array_equal(loaded.search(queries, 9), index.search(queries, 9))
    np.testing.assert_array_equal(loaded.range_search(queries, 5)[2], index.range_search(queries, 5)[2])
    loaded.add(queries)
    loaded.remove(np.arange(100, 300))
    assert loaded.ids[-7:].tolist() == list(range(500, 507))
    assert index.ntotal == 498


def test_a_file_from_before_there_were_tables(tmp_path):
    codes, queries = make_codes("clustered", 12, 9000, 64)
    _storage.write_container(tmp_path / "old", "hamming-index", {"n_bits": 64, "method": "auto"}, {"codes": codes})
    index = HammingIndex.load(tmp_path / "old")
    assert index._state.segments
    np.testing.assert_array_equal(index.search(queries, 9), hamming_knn(queries, codes, 9))


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("mmap", [False, True])
def test_every_damaged_byte_is_found(tmp_path, mmap):
    filled(50, make_codes("random", 14, 60, 50)[0], 14).save(tmp_path / "index")
    good = (tmp_path / "index").read_bytes()
    damaged = tmp_path / "damaged"
    for position in range(0, len(good), 41):
        damaged.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(CorruptFileError, match="damaged"):
            HammingIndex.load(damaged, mmap)
        damaged.write_bytes(good[:position])
        with pytest.raises(CorruptFileError, match="damaged"):
            HammingIndex.load(damaged, mmap)
    with pytest.raises(FastHashError, match="nowhere"):
        HammingIndex.load(tmp_path / "nowhere", mmap)


def change_table(**changes):
    return lambda meta, _: meta["segments"][0]["tables"][0].update(changes)


def change_array(name, position, value):
    def change(_, arrays):
        arrays[name] = arrays[name].copy()
        arrays[name][position] = value

    return change


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize(
    "change",
    [
        lambda meta, _: meta.update(n_bits=72),
        lambda meta, _: meta.update(n_bits=50),
        lambda meta, _: meta.update(method="later"),
        lambda meta, _: meta.pop("method"),
        lambda meta, _: meta.update(segments=[{}]),
        lambda meta, _: meta.update(segments=7),
        lambda meta, _: meta.update(next_id=3),
        lambda meta, _: meta["segments"][0].update(count=300),
        lambda meta, _: meta["segments"][0].update(tables=[]),
        lambda meta, _: meta["segments"].append(meta["segments"][0]),
        lambda meta, _: meta["segments"][0]["tables"].reverse(),
        change_table(first_bit=60),
        change_table(first_bit=20),
        change_table(first_bit=-1),
        change_table(key_bits=9),
        change_table(word_at=1),
        change_array("offsets 0 0", 0, 1),
        change_array("offsets 0 1", -1, 10**6),
        change_array("offsets 0 1", 3, 10**6),
        change_array("rows 0 2", 5, 200),
        lambda _, arrays: arrays.pop("rows 0 1"),
        lambda _, arrays: arrays.pop("words 0 1"),
        lambda _, arrays: arrays.update({"words 0 1": arrays["words 0 1"][:-1]}),
        lambda _, arrays: arrays.update({"rows 0 1": arrays["rows 0 1"].astype(np.int64)}),
        lambda _, arrays: arrays.update(ids=np.zeros(200, np.int64)),
        lambda _, arrays: arrays.update(ids=np.arange(199)),
        lambda _, arrays: arrays.update(dead=np.zeros(24, np.uint8)),
        lambda _, arrays: arrays.pop("codes"),
    ],
)
def test_a_sound_file_with_the_wrong_contents_is_refused(tmp_path, change):
    codes = make_codes("random", 15, 200, 64)[0]
    index = HammingIndex(64)
    index.add(codes)
    index.save(tmp_path / "index")
    meta, arrays = _storage.read_container(tmp_path / "index", "hamming-index")
    change(meta, arrays)
    _storage.write_container(tmp_path / "index", "hamming-index", meta, arrays)
    with pytest.raises(CorruptFileError, match="index: not a Hamming index"):
        HammingIndex.load(tmp_path / "index")


@pytest.mark.usefixtures("small_segments")
def test_no_neighbours_wanted_is_no_error():
    for n_bits in (8, 64, 300):
        index = HammingIndex(n_bits)
        codes = pack_bits(np.random.default_rng(3).integers(0, 2, (90, n_bits)).astype(bool))
        index.add(codes)
        assert [part.shape for part in index.search(codes[:2], 0)] == [(2, 0), (2, 0)]


def test_an_add_that_fails_leaves_everything_as_it_was(monkeypatch):
    codes = pack_bits(np.random.default_rng(5).integers(0, 2, (10, 64)).astype(bool))
    index = HammingIndex(64)
    index.add(codes[:4])

    def fail(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(index, "_covered", fail)
        with pytest.raises(MemoryError):
            index.add(codes[4:6], ids=[100, 101])
    assert index.ntotal == 4
    index.add(codes[6:9])
    index.add(codes[9], ids=[50])
    assert index.ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 50]
    np.testing.assert_array_equal(index.codes, codes[[0, 1, 2, 3, 6, 7, 8, 9]])


def test_numbers_that_run_out_are_refused(tmp_path):
    codes = np.zeros((3, 8), np.uint8)
    index = HammingIndex(64)
    index.add(codes[:1], ids=[2**63 - 4])
    index.add(codes[:1])
    with pytest.raises(ArgumentError, match="ids: no numbers are left after 9223372036854775805"):
        index.add(codes[:2])
    index.add(codes[:1])
    assert index.ids.tolist() == [2**63 - 4, 2**63 - 3, 2**63 - 2]
    index.save(tmp_path / "index")
    assert HammingIndex.load(tmp_path / "index").ids.tolist() == index.ids.tolist()


@pytest.mark.parametrize("name", ["ids", "rows", "queries", "codes"])
def test_lists_of_unequal_lengths_are_refused(name):
    codes, ragged = np.zeros((3, 8), np.uint8), [[1], [2, 3]]
    index = HammingIndex(64)
    index.add(codes)
    calls = {
        "ids": lambda: index.remove(ragged),
        "rows": lambda: index.search(codes, 1, rows=ragged),
        "queries": lambda: index.search(ragged, 1),
        "codes": lambda: index.add(ragged),
    }
    with pytest.raises(ArgumentError, match=f"{name}: not an array"):
        calls[name]()
