"""An index of codes: exact, and below the cost of a scan where the codes allow it.

The codes are the truth; tables over them only tell which can be near. A search that would cost more by tables than by
a scan is a scan, so that every answer is that of :func:`fasthash.hamming.knn_hamming` on the same codes.

Source: Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash import hamming
from fasthash._hamming import available_levels as all_levels
from fasthash._multi_index import MAX_KEY_BITS, MAX_TABLES, PADDING, WORD, Snapshot, available_levels, build
from fasthash._parallel import map_jobs
from fasthash._storage import read_container, write_container
from fasthash._validation import as_subset, available_cores, check_choice, check_int, check_threads
from fasthash.codes import as_padded_codes
from fasthash.errors import ArgumentError, CorruptFileError
from fasthash.hamming import MAX_BITS, simd_level

METHODS = ("auto", "scan", "buckets", "multi-index")

_KIND = "hamming-index"
_BUCKET_BITS = 16  # up to so many bits a code is its own key
_TABLE_BITS = 256  # longer codes are near each other too seldom for tables to pay without being asked for
_TAIL = 8192  # up to so many codes a scan costs no more than a few keys in another segment would
_MERGED = 3  # a segment grows when what comes after it has a third of its rows: there are few, and few are built anew
_MAX_ROWS = 1 << 31  # of a segment
_DEAD_SHARE = 4  # when a quarter of the rows is dead, the others move together
_RANK_SHARE = 64  # for more than 1/64 of all codes, counting distances beats any table
_BUDGET = 64  # a query may compare n * n_bytes / 64 entries: half of a scan
_BATCH = 8  # of so many queries or more, each costs a third of a lone one to scan
_BATCH_BUDGET = 192
_QUERIES_A_JOB = 32  # about as long as it takes to start a thread

# The kernel's best level that does not exceed the instruction set in use.
_LEVELS = {
    name: sum(own in all_levels()[: i + 1] for own in available_levels()) - 1 for i, name in enumerate(all_levels())
}

_Codes = NDArray[np.uint8]
_Ints = NDArray[np.int64]
_Distances = NDArray[np.int32]
_Subset = slice | _Ints
_PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """The rows of a segment, sorted by bits ``first_bit`` to ``first_bit + key_bits - 1``, as csrc/multi_index.h says.

    offsets: uint32 (2^key_bits + 1,); rows: uint32 (count,), at least one; words: uint8 (count * width + PADDING,),
    the bytes from ``word_at`` on of each row's code, or None.
    """

    first_bit: int
    key_bits: int
    word_at: int
    offsets: NDArray[np.uint32]
    rows: NDArray[np.uint32]
    words: _Codes | None

    @property
    def nbytes(self) -> int:
        return self.offsets.nbytes + self.rows.nbytes + (0 if self.words is None else self.words.nbytes)


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """Tables over the rows ``first`` to ``first + count - 1``."""

    first: int
    count: int
    tables: tuple[_Table, ...]

    @property
    def stop(self) -> int:
        return self.first + self.count


@dataclass(frozen=True, eq=False)
class _State:
    """All that a search looks at. It never changes: whatever changes an index puts another in its place."""

    n_bits: int
    codes: _Codes  # (n, n_bytes), in order of addition
    ids: _Ints | None  # (n,); None: the row numbers
    rising: bool  # ids rise with the rows, so that ties by row are ties by id
    dead: _Codes | None  # bit row % 8 of byte row // 8; None: all are live
    n_dead: int
    segments: tuple[_Segment, ...]

    @property
    def n_live(self) -> int:
        return len(self.codes) - self.n_dead

    @cached_property
    def live(self) -> _Ints:
        """The rows that are not dead."""
        if self.dead is None:
            return np.arange(len(self.codes))
        return np.flatnonzero(np.unpackbits(self.dead, count=len(self.codes), bitorder="little") == 0)

    @cached_property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.codes, self.n_bits, self.dead, self.segments)

    def ids_of(self, rows: _Ints) -> _Ints:
        return rows if self.ids is None else self.ids[rows]

    def rows_of(self, ids: _Ints) -> _Ints:
        """The live row of each id, -1 where there is none."""
        if self.ids is None:
            rows, found = ids, (ids >= 0) & (ids < len(self.codes))
        else:
            order = None if self.rising else np.argsort(self.ids, kind="stable")
            # Of rows with one id only the last can be live: an id may come back once its row is dead.
            place = np.searchsorted(self.ids, ids, side="right", sorter=order) - 1
            rows = place if order is None else order[place]
            found = (place >= 0) & (self.ids[rows] == ids)
        rows = np.where(found, rows, -1)
        if self.dead is not None:
            rows = np.where(self.dead[rows >> 3] >> (rows & 7).astype(np.uint8) & 1, -1, rows)
        return rows

    def looked_at(self, subset: _Subset) -> tuple[int, int, int]:
        """How many of the live rows a subset of them are, and between which rows they lie, where it is a slice."""
        if not isinstance(subset, slice):
            return len(subset), 0, 0
        start, stop = subset.start, subset.stop
        if self.n_dead == 0 or start == stop:
            return stop - start, start, stop
        return stop - start, int(self.live[start]), int(self.live[stop - 1]) + 1

    def scanned(self, subset: _Subset) -> _Subset:
        """The same for a scan, which cannot pass over dead rows: a slice of all rows, or row numbers."""
        return subset if self.n_dead == 0 else self.live[subset]


class HammingIndex:
    """Codes of one length, to add to, to remove from and to search, exactly whatever the method.

    Any number of threads may search while another adds or removes: a search sees the codes that were there when it
    began. Every code has an id, which never changes; hits are ordered by (distance, id).

    Parameters
    ----------
    n_bits : int, from 1 to 4096
        Length of the codes; they take ``ceil(n_bits / 8)`` bytes each and their unused bits must be zero.
    method : "auto", "scan", "buckets" or "multi-index"
        How to search. "scan" compares each query with every code. "buckets", for up to 16 bits, keeps the rows of each
        code together. "multi-index" keeps tables of the codes sorted by parts of them, and looks up only those that
        can be near (Norouzi et al., 2012). Both fall back to the scan for queries that it answers sooner. "auto" is
        "buckets" up to 16 bits, "multi-index" up to 256, else "scan".
    compact : bool
        Codes and tables take at most 6 times the bytes of 100,000 codes or more; with ``compact`` at most 3 times, and
        searches are slower. Up to 16 bits compact means "scan". Ids of your own take 8 bytes each on top.
    """

    def __init__(self, n_bits: int, method: str = "auto", compact: bool = False) -> None:
        self.n_bits = check_int("n_bits", n_bits, 1, MAX_BITS)
        self.method = check_choice("method", method, METHODS)
        if not isinstance(compact, (bool, np.bool_)):
            raise ArgumentError(f"compact: expected True or False, got {compact!r}")
        self.compact = bool(compact)
        if method == "buckets" and n_bits > _BUCKET_BITS:
            raise ArgumentError(f"method: buckets are for codes of up to {_BUCKET_BITS} bits, got {n_bits}")
        if method == "multi-index" and n_bits <= _BUCKET_BITS:
            raise ArgumentError(f"method: multi-index is for codes of more than {_BUCKET_BITS} bits, got {n_bits}")
        self._changing = threading.Lock()
        self._buffer = np.empty((0, -(-self.n_bits // 8)), np.uint8)
        self._id_buffer = np.empty(0, np.int64)
        self._next_id = 0
        self._state = _State(self.n_bits, self._buffer, None, True, None, 0, ())

    @property
    def ntotal(self) -> int:
        """How many codes the index holds."""
        return self._state.n_live

    def __len__(self) -> int:
        return self.ntotal

    def __repr__(self) -> str:
        return f"HammingIndex(n_bits={self.n_bits}, method={self.method!r}, ntotal={self.ntotal})"

    @property
    def codes(self) -> _Codes:
        """The codes held now in order of addition, uint8 (ntotal, n_bytes), read-only; a copy once some are removed."""
        state = self._state
        return _read_only(state.codes[:] if state.n_dead == 0 else state.codes[state.live])

    @property
    def ids(self) -> _Ints:
        """Their ids, int64 (ntotal,), read-only."""
        state = self._state
        return _read_only(state.ids_of(state.live)[:])

    @property
    def nbytes(self) -> int:
        """Bytes of memory: codes, ids, tables, and room for codes to come."""
        state = self._state
        tables = sum(table.nbytes for segment in state.segments for table in segment.tables)
        held = self._buffer.nbytes + (0 if state.ids is None else self._id_buffer.nbytes)
        return held + tables + (0 if state.dead is None else state.dead.nbytes)

    def add(self, codes: Any, ids: Any = None) -> None:
        """Append codes; all or none are added.

        Now and then this sorts the codes added lately into tables, in all about a microsecond a code and table;
        searches in other threads go on meanwhile. Ids that do not rise in order of addition are allowed, but cost an
        ``add`` or ``remove`` a pass over all ids, and a search of several equally near codes more time.

        Parameters
        ----------
        codes : uint8, shape (n, n_bytes) or (n_bytes,)
        ids : integers of shape (n,), optional
            At least 0, none twice and none in use. Without them the codes take the numbers that follow the greatest id
            so far: 0, 1, 2, ...

        Raises
        ------
        ArgumentError
            Where codes have another dtype or width or a one among their unused bits, or ids do not fit.
        """
        added = as_padded_codes("codes", codes, self.n_bits)
        given = None if ids is None else _as_ids(ids, len(added))
        with self._changing:
            state = self._state
            if given is not None:
                _check_new(given, state, self._next_id)
            if len(added) == 0:
                return
            own = self._appended_ids(state, len(added), given)
            self._buffer = _appended(self._buffer, state.codes, added)
            before, after = len(state.codes), len(state.codes) + len(added)
            rising = state.rising and (given is None or bool((np.diff(given, prepend=self._next_id - 1) > 0).all()))
            dead = state.dead
            if dead is not None:
                dead = np.concatenate([dead, np.zeros((after + 7) // 8 - len(dead), np.uint8)])
            held = self._buffer[:after]
            segments = _covered(self._layout, held, state.segments)
            self._next_id = max(self._next_id, (before + len(added) if own is None else int(own[before:].max()) + 1))
            self._state = _State(self.n_bits, held, own, rising, dead, state.n_dead, segments)

    def _appended_ids(self, state: _State, n: int, given: _Ints | None) -> _Ints | None:
        """The ids of all rows once n more have come; None while they are the row numbers."""
        before = len(state.codes)
        if given is None and state.ids is None and self._next_id == before:
            return None
        new = np.arange(self._next_id, self._next_id + n) if given is None else given
        self._id_buffer = _appended(self._id_buffer, state.ids_of(np.arange(before)), new)
        return self._id_buffer[: before + n]

    def remove(self, ids: Any) -> None:
        """Remove codes by their ids, integers of shape (m,); all or none are removed, and the others keep their ids.

        Removed rows are passed over by searches until they are a quarter of all; then the others are indexed anew.
        Raises ArgumentError where an id is not in use.
        """
        with self._changing:
            state = self._state
            wanted = np.unique(_as_ids(ids))
            rows = state.rows_of(wanted)
            if (rows < 0).any():
                unknown = wanted[rows < 0]
                raise ArgumentError(f"ids: expected ids in use, got {_some(unknown)}")
            if len(rows) == 0:
                return
            n = len(state.codes)
            bits = np.zeros(8 * ((n + 7) // 8), np.uint8) if state.dead is None else _bits(state.dead)
            bits[rows] = 1
            dead, n_dead = np.packbits(bits, bitorder="little"), state.n_dead + len(rows)
            self._state = _State(self.n_bits, state.codes, state.ids, state.rising, dead, n_dead, state.segments)
            if n_dead * _DEAD_SHARE > n:
                self._compact()

    def _compact(self) -> None:
        """Move the live rows together, and build their tables anew."""
        state = self._state
        self._buffer = np.ascontiguousarray(state.codes[state.live])
        self._id_buffer = state.ids_of(state.live)
        segments = _covered(self._layout, self._buffer, ())
        self._state = _State(self.n_bits, self._buffer, self._id_buffer, state.rising, None, 0, segments)

    def search(
        self, queries: Any, k: int, num_threads: int = -1, rows: Any = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The k nearest codes of each query: see :func:`knn_hamming`.

        Parameters
        ----------
        queries : uint8, shape (n_queries, n_bytes) or (n_bytes,)
        k : int, at least 1
        num_threads : int; -1 for every core this process may use
        rows : slice, bool mask of shape (ntotal,), or integers of shape (m,), optional
            Look at these codes only, counted in order of addition among those held; below, n is how many they are.
            A slice is looked up in the tables as all are; anything else is a scan of those codes.

        Returns
        -------
        distances : int32, shape (n_queries, min(k, n))
        ids : int64, shape (n_queries, min(k, n))
            Ordered by (distance, id). They are the row numbers, if you have given no ids of your own.

        Raises
        ------
        ArgumentError
            Where queries has another dtype or width or a one among its unused bits, or a number is out of range.
        """
        state = self._state
        checked = as_padded_codes("queries", queries, self.n_bits)
        k, threads = check_int("k", k, 1), check_threads(num_threads)
        subset = as_subset(rows, state.n_live)
        distances, found = _nearest(state, checked, k, threads, subset)
        if state.rising:
            return distances, state.ids_of(found)
        return distances, _nearest_by_id(state, checked, distances, threads, subset)

    def range_search(
        self, queries: Any, radius: int, num_threads: int = -1, rows: Any = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
        """Every code at most ``radius`` bits away from each query: see :func:`range_hamming`.

        ``rows`` are as for :meth:`search`. Returns ``(limits, distances, ids)``: int64 (n_queries + 1,), int32
        (n_hits,), int64 (n_hits,); each query's hits are in order of (distance, id). Raises ArgumentError as
        :meth:`search` does.
        """
        state = self._state
        checked = as_padded_codes("queries", queries, self.n_bits)
        radius, threads = check_int("radius", radius, 0), check_threads(num_threads)
        parts = _within(state, checked, radius, threads, as_subset(rows, state.n_live))
        limits = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(distances) for distances, _ in parts], out=limits[1:])
        return limits, _joined([part[0] for part in parts], np.int32), _joined([part[1] for part in parts], np.int64)

    def save(self, path: _PathLike) -> None:
        """Write the index, tables included, as one checksummed file, which appears whole or not at all."""
        with self._changing:
            state, next_id = self._state, self._next_id
        arrays: dict[str, NDArray[Any]] = {"codes": state.codes}
        if state.ids is not None:
            arrays["ids"] = state.ids
        if state.dead is not None:
            arrays["dead"] = state.dead
        segments = []
        for i, segment in enumerate(state.segments):
            tables = []
            for j, table in enumerate(segment.tables):
                tables.append({name: getattr(table, name) for name in ("first_bit", "key_bits", "word_at")})
                parts = {"offsets": table.offsets, "rows": table.rows, "words": table.words}
                arrays |= {f"{name} {i} {j}": part for name, part in parts.items() if part is not None}
            segments.append({"count": segment.count, "tables": tables})
        meta = {"n_bits": self.n_bits, "method": self.method, "compact": self.compact, "next_id": next_id}
        write_container(path, _KIND, meta | {"segments": segments}, arrays)

    @classmethod
    def load(cls, path: _PathLike, mmap: bool = False) -> "HammingIndex":
        """Read an index that :meth:`save` wrote; nothing is built.

        With ``mmap`` the file is mapped into memory, read-only, once its checksum has been verified: processes that
        load one file share its pages. Such a file must be left as it is until the index is gone: `save` over it and
        deleting it are harmless, since they leave the old one to whom has it, but cutting it short is not.

        Raises CorruptFileError where the file is damaged, cut short or of another kind.
        """
        meta, arrays = read_container(path, _KIND, mmap)
        try:
            index = cls(meta["n_bits"], meta["method"], meta.get("compact", False))
            index._restore(meta, arrays)
        except (AttributeError, KeyError, TypeError, ValueError, ArgumentError) as error:
            raise CorruptFileError(f"{path}: not a Hamming index that this fasthash can read: {error}") from error
        return index

    def _restore(self, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        codes = as_padded_codes("codes", arrays["codes"], self.n_bits)
        n = len(codes)
        ids, dead = arrays.get("ids"), arrays.get("dead")
        if ids is not None:
            ids = _as_ids(_array("ids", ids, np.int64, n), n)
        if dead is not None:
            dead = _array("dead", dead, np.uint8, (n + 7) // 8)
        n_dead = 0 if dead is None else int(_bits(dead).sum())
        self._next_id = check_int("next_id", meta.get("next_id", n), n if ids is None else int(ids.max(initial=-1)) + 1)
        rising = ids is None or bool((np.diff(ids) > 0).all())
        self._buffer, self._id_buffer = codes, np.empty(0, np.int64) if ids is None else ids
        segments = tuple(_restored(meta.get("segments", []), arrays, n, self.n_bits))
        if "segments" not in meta:  # a file from before there were any
            segments = _covered(self._layout, codes, ())
        self._state = _State(self.n_bits, codes, ids, rising, dead, n_dead, segments)
        if dead is not None and _bits(dead)[n:].any():
            raise ArgumentError("dead: expected no row beyond the last")
        if len(np.unique(self._state.ids_of(self._state.live))) != self._state.n_live:
            raise ArgumentError("ids: expected none twice")

    def _layout(self, count: int) -> list[tuple[int, int, int, int]]:
        """Which tables a segment of so many codes gets: first_bit, key_bits, word_at, width of a word (0: none)."""
        n_bytes = -(-self.n_bits // 8)
        key_bits = max(1, min(count.bit_length() - 3, MAX_KEY_BITS))  # then offsets take at most a byte a code
        if self.method == "scan" or (self.method == "auto" and self.n_bits > _TABLE_BITS):
            return []
        if self.n_bits <= _BUCKET_BITS:
            return [] if self.compact else [(0, self.n_bits, 0, 0)]
        width = 0 if self.compact else min(WORD, n_bytes)
        room = (2 if self.compact else 5) * n_bytes - n_bytes / 8  # _appended leaves an eighth for codes to come
        n_tables = max(1, min(int(room / (4 + 1 + width)), round(self.n_bits / key_bits), MAX_TABLES))
        key_bits = min(key_bits, self.n_bits // n_tables)
        if key_bits == self.n_bits:
            return [(0, key_bits, 0, 0)]
        starts = [self.n_bits * j // n_tables for j in range(n_tables)]
        return [(start, key_bits, _word_at(start, key_bits, width, n_bytes), width) for start in starts]


# ---------------------------------------------------------------- tables


def _word_at(first_bit: int, key_bits: int, width: int, n_bytes: int) -> int:
    """The byte where a table's words begin: beyond the key if they fit there, before it if not, else anywhere.

    What a key has in common with a query's is known; words tell most where they hold other bits.
    """
    after, before = -(-(first_bit + key_bits) // 8), first_bit // 8 - width
    if after + width <= n_bytes:
        return after
    return before if before >= 0 else n_bytes - width


def _covered(layout: Any, codes: _Codes, segments: tuple[_Segment, ...]) -> tuple[_Segment, ...]:
    """Segments over all codes but a short tail. Of those there are, all stay but small ones at the end, which merge."""
    start, stop = segments[-1].stop if segments else 0, len(codes)
    if stop - start < _TAIL or not layout(stop - start):
        return segments
    while segments and segments[-1].count < _MERGED * (stop - start) and stop - segments[-1].first <= _MAX_ROWS:
        start, segments = segments[-1].first, segments[:-1]
    parts = (codes[first : first + _MAX_ROWS] for first in range(start, stop, _MAX_ROWS))
    for part in parts:
        segments = (*segments, _Segment(start, len(part), _tables(layout(len(part)), part)))
        start += len(part)
    return segments


def _tables(layout: list[tuple[int, int, int, int]], codes: _Codes) -> tuple[_Table, ...]:
    def built(wanted: tuple[int, int, int, int]) -> _Table:
        first_bit, key_bits, word_at, width = wanted
        words = np.empty(len(codes) * width + PADDING, np.uint8) if width else None
        offsets, rows = np.empty((1 << key_bits) + 1, np.uint32), np.empty(len(codes), np.uint32)
        table = _Table(first_bit, key_bits, word_at, offsets, rows, words)
        build(table, codes)
        return table

    return tuple(map_jobs(built, layout, available_cores() if len(codes) > _TAIL else 1))


# ---------------------------------------------------------------- searches; rows, not ids


def _nearest(state: _State, queries: _Codes, k: int, threads: int, subset: _Subset) -> tuple[_Distances, _Ints]:
    """The k nearest of a subset of the live rows, by (distance, row): by tables where there are any, else by a scan."""
    n, first, last = state.looked_at(subset)
    k = min(k, n)
    if not _pays(state, n, last) or k * _RANK_SHARE > n or len(queries) == 0:
        return hamming._knn(queries, state.codes, k, threads, state.scanned(subset))
    distances, found = np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.int64)
    snapshot, level, budget = state.snapshot, _LEVELS[simd_level()], _budget(state, n, len(queries))

    def look_up(some: slice) -> int:
        return snapshot.knn(level, queries[some], first, last, budget, distances[some], found[some])

    jobs = [slice(i, i + _QUERIES_A_JOB) for i in range(0, len(queries), _QUERIES_A_JOB)]
    if sum(map_jobs(look_up, jobs, min(threads, len(queries) // _QUERIES_A_JOB))):
        left = np.flatnonzero(distances[:, 0] < 0)
        distances[left], found[left] = hamming._knn(queries[left], state.codes, k, threads, state.scanned(subset))
    return distances, found


def _nearest_by_id(state: _State, queries: _Codes, distances: _Distances, threads: int, subset: _Subset) -> _Ints:
    """The ids of the nearest by (distance, id), from the distances of the nearest by (distance, row).

    Of the codes as near as the last, those of the least ids may be others than those of the first rows.
    """
    ids = np.empty(distances.shape, np.int64)
    for i in range(len(queries) if ids.size else 0):
        _, found = _within(state, queries[i : i + 1], int(distances[i, -1]), threads, subset)[0]
        ids[i] = found[: ids.shape[1]]
    return ids


def _within(
    state: _State, queries: _Codes, radius: int, threads: int, subset: _Subset
) -> list[tuple[_Distances, _Ints]]:
    """Distances and ids of all hits of each query, by (distance, id)."""
    n, first, last = state.looked_at(subset)
    level, budget = _LEVELS[simd_level()], _budget(state, n, len(queries))
    radius = min(radius, 8 * state.codes.shape[1])

    def look_up(query: _Codes) -> NDArray[np.uint64] | None:
        keys = np.empty(1024, np.uint64)
        hits = state.snapshot.range_keys(level, query, first, last, budget, radius, keys)
        if hits > len(keys):
            keys = np.empty(hits, np.uint64)
            hits = state.snapshot.range_keys(level, query, first, last, budget, radius, keys)
        return None if hits < 0 else np.sort(keys[:hits])

    keys: list[Any] = [None] * len(queries)
    if _pays(state, n, last):
        keys = map_jobs(look_up, list(queries), min(threads, len(queries) // _QUERIES_A_JOB))
    left = [i for i, found in enumerate(keys) if found is None]
    limits, distances, rows = hamming._range(queries[left], state.codes, radius, threads, state.scanned(subset))
    scanned = {i: slice(limits[j], limits[j + 1]) for j, i in enumerate(left)}
    hits = [
        (distances[scanned[i]], rows[scanned[i]]) if found is None else hamming._decode(found)
        for i, found in enumerate(keys)
    ]
    return [_by_id(state, *found) for found in hits]


def _by_id(state: _State, distances: _Distances, rows: _Ints) -> tuple[_Distances, _Ints]:
    """Hits by (distance, row) as hits by (distance, id)."""
    ids = state.ids_of(rows)
    if state.rising:
        return distances, ids
    order = np.lexsort((ids, distances))
    return distances[order], ids[order]


def _pays(state: _State, n: int, last: int) -> bool:
    """Whether tables can be faster than a scan of so many rows, up to ``last``: 0 where they are no neighbours."""
    return bool(state.segments) and last > 0 and n > _TAIL


def _budget(state: _State, n: int, n_queries: int) -> int:
    """How many entries a query may be compared with before it is left to the scan."""
    return n * state.codes.shape[1] // (_BUDGET if n_queries < _BATCH else _BATCH_BUDGET)


# ---------------------------------------------------------------- small things


def _appended(buffer: NDArray[Any], held: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    """A buffer that begins with the rows held and the new ones: the same one if they fit, else one a bit larger.

    A search may hold the rows in use, which stay as they are; it has never been given those after them.
    """
    before, after = len(held), len(held) + len(new)
    if after > len(buffer):
        room = 0 if before == 0 else max(before // 8, 1024)
        buffer = np.empty((after + room, *held.shape[1:]), held.dtype)
        buffer[:before] = held
    buffer[before:after] = new
    return buffer


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _joined(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *parts])


def _bits(dead: _Codes) -> _Codes:
    return np.unpackbits(dead, bitorder="little")


def _some(ids: _Ints) -> str:
    return ", ".join(map(str, ids[:5].tolist())) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _as_ids(value: Any, n: int | None = None) -> _Ints:
    """Integers of shape (n,), one number for n = 1, that int64 holds and that are not negative."""
    ids = np.atleast_1d(np.asarray(value))
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu") or (n is not None and len(ids) != n):
        wanted = "(m,)" if n is None else f"({n},)"
        raise ArgumentError(f"ids: expected integers of shape {wanted}, got {ids.dtype} of shape {ids.shape}")
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < 2**63 - 1:
        raise ArgumentError(f"ids: expected integers in [0, 2^63 - 2], got {ids.min()} to {ids.max()}")
    return ids.astype(np.int64)


def _check_new(ids: _Ints, state: _State, next_id: int) -> None:
    ordered = np.sort(ids)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise ArgumentError(f"ids: expected none twice, got {_some(np.unique(twice))} more than once")
    if len(ids) and ordered[0] < next_id:
        taken = ids[state.rows_of(ids) >= 0]
        if len(taken):
            raise ArgumentError(f"ids: expected ids not in use, got {_some(taken)}")


# ---------------------------------------------------------------- files


def _array(name: str, array: NDArray[Any], dtype: Any, n: int) -> NDArray[Any]:
    if array.dtype != np.dtype(dtype) or array.shape != (n,):
        raise ArgumentError(f"{name}: expected {np.dtype(dtype).name} ({n},), got {array.dtype} {array.shape}")
    return array


def _restored(segments: Any, arrays: Mapping[str, NDArray[Any]], n: int, n_bits: int) -> Iterator[_Segment]:
    """The segments of a file, with everything checked that the kernels rely on."""
    first = 0
    for i, described in enumerate(segments):
        count = check_int("count", described["count"], 1, min(n - first, _MAX_ROWS))
        tables = []
        for j, table in enumerate(described["tables"]):
            parts = arrays[f"offsets {i} {j}"], arrays[f"rows {i} {j}"], arrays.get(f"words {i} {j}")
            tables.append(_checked_table(table, *parts, count, n_bits))
        _check_together(tables)
        yield _Segment(first, count, tuple(tables))
        first += count


def _checked_table(meta: Mapping[str, Any], offsets: Any, rows: Any, words: Any, count: int, n_bits: int) -> _Table:
    first_bit = check_int("first_bit", meta["first_bit"], 0, n_bits - 1)
    key_bits = check_int("key_bits", meta["key_bits"], 1, min(n_bits - first_bit, MAX_KEY_BITS))
    offsets = _array("offsets", offsets, np.uint32, (1 << key_bits) + 1)
    rows = _array("rows", rows, np.uint32, count)
    width = 0
    if words is not None:
        width = check_int("width of words", (words.size - PADDING) // count, 1, min(WORD, -(-n_bits // 8)))
        words = _array("words", words, np.uint8, count * width + PADDING)
    word_at = check_int("word_at", meta["word_at"], 0, -(-n_bits // 8) - width)
    if offsets[0] != 0 or offsets[-1] != count or (offsets[1:] < offsets[:-1]).any():
        raise ArgumentError(f"offsets: expected to rise from 0 to {count}")
    if rows.max() >= count:
        raise ArgumentError(f"rows: expected less than {count}, got {rows.max()}")
    return _Table(first_bit, key_bits, word_at, offsets, rows, words)


def _check_together(tables: list[_Table]) -> None:
    """Keys that share no bit, and the same width of words."""
    check_int("tables", len(tables), 1, MAX_TABLES)
    for table, after in pairwise(tables):
        if table.first_bit + table.key_bits > after.first_bit:
            raise ArgumentError("tables: expected keys that share no bit")
        if (table.words is None) != (after.words is None) or table.nbytes - table.offsets.nbytes != (
            after.nbytes - after.offsets.nbytes
        ):
            raise ArgumentError("tables: expected words of one width")
