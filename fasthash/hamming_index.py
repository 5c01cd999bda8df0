"""An index of codes: exact, and below the cost of a scan where the codes allow it.

The codes are the truth; tables over them only tell which can be near. A search that would cost more by tables than by
a scan is a scan, so that every answer is that of :func:`fasthash.hamming.knn_hamming` on the same codes.

Source: Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012.
"""

import copy
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash import _segments, hamming
from fasthash._buffers import appended
from fasthash._multi_index import Snapshot, available_levels
from fasthash._parallel import map_jobs
from fasthash._segments import BUCKET_BITS, Layout, Segment, checked_array, covered, for_file, from_file
from fasthash._storage import read_container, write_container
from fasthash._validation import as_array, as_subset, check_choice, check_int, check_threads
from fasthash.codes import as_padded_codes
from fasthash.errors import ArgumentError, CorruptFileError
from fasthash.hamming import MAX_BITS, best_levels, simd_level

METHODS = ("auto", "scan", "buckets", "multi-index")

_KIND = "hamming-index"
_TABLE_BITS = 256  # longer codes are near each other too seldom for tables to pay without being asked for
_DEAD_SHARE = 4  # when a quarter of the rows is dead, the others move together
_RANK_SHARE = 64  # for more than 1/64 of all codes, counting distances beats any table
_BUDGET = 96  # a query may compare n * n_bytes / 96 entries: a third to a half of a scan
_BATCH = 8  # of so many queries or more, each costs a third of a lone one to scan
_BATCH_BUDGET = 160
_MAX_ID = 2**63 - 2
_QUERIES_A_JOB = 128  # about as long as it takes to start a thread

_LEVELS = best_levels(available_levels())

_Codes = NDArray[np.uint8]
_Ints = NDArray[np.int64]
_Distances = NDArray[np.int32]
_Subset = slice | _Ints
_PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class _State:
    """All that a search looks at. It never changes: whatever changes an index puts another in its place."""

    n_bits: int
    codes: _Codes  # (n, n_bytes), in order of addition
    ids: _Ints | None  # (n,); None: the row numbers
    rising: bool  # ids rise with the rows, so that ties by row are ties by id
    dead: _Codes | None  # bit row % 8 of byte row // 8; None: all are live
    n_dead: int
    segments: tuple[Segment, ...]

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
        if self.ids is None or len(self.codes) == 0:
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
        searches are slower. Up to 16 bits compact means "scan". Ids of your own take 8 bytes each on top, and so do
        any once removed rows have been moved out.
    """

    def __init__(self, n_bits: int, method: str = "auto", compact: bool = False) -> None:
        self.n_bits = check_int("n_bits", n_bits, 1, MAX_BITS)
        self.method = check_choice("method", method, METHODS)
        if not isinstance(compact, (bool, np.bool_)):
            raise ArgumentError(f"compact: expected True or False, got {compact!r}")
        self.compact = bool(compact)
        if method == "buckets" and n_bits > BUCKET_BITS:
            raise ArgumentError(f"method: buckets are for codes of up to {BUCKET_BITS} bits, got {n_bits}")
        if method == "multi-index" and n_bits <= BUCKET_BITS:
            raise ArgumentError(f"method: multi-index is for codes of more than {BUCKET_BITS} bits, got {n_bits}")
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
            elif self._next_id + len(added) > _MAX_ID + 1:
                raise ArgumentError(f"ids: no numbers are left after {self._next_id - 1} for codes without ids")
            if len(added) == 0:
                return
            before, after = len(state.codes), len(state.codes) + len(added)
            id_buffer = self._with_ids(state, len(added), given)
            own = None if id_buffer is None else id_buffer[:after]
            buffer = appended(self._buffer, state.codes, added)
            rising = state.rising and (given is None or bool((np.diff(given, prepend=self._next_id - 1) > 0).all()))
            dead = state.dead
            if dead is not None:
                dead = np.concatenate([dead, np.zeros((after + 7) // 8 - len(dead), np.uint8)])
            held = buffer[:after]
            segments = self._covered(held, state.segments)
            # All of it only now, that whatever fails above leaves the index as it was.
            self._buffer = buffer
            self._id_buffer = self._id_buffer if id_buffer is None else id_buffer
            self._next_id = max(self._next_id, (before + len(added) if own is None else int(own[before:].max()) + 1))
            self._state = _State(self.n_bits, held, own, rising, dead, state.n_dead, segments)

    def snapshot(self) -> "HammingIndex":
        """An index that holds what this one does now, without a copy of it; whatever changes one leaves the other."""
        with self._changing:
            taken = copy.copy(self)
        taken._changing = threading.Lock()
        taken._buffer, taken._id_buffer = taken._state.codes, np.empty(0, np.int64)
        return taken

    def _with_ids(self, state: _State, n: int, given: _Ints | None) -> _Ints | None:
        """A buffer that begins with the ids of all rows once n more have come; None while they are the row numbers."""
        before = len(state.codes)
        if given is None and state.ids is None and self._next_id == before:
            return None
        new = np.arange(self._next_id, self._next_id + n) if given is None else given
        if state.ids is None:
            return appended(np.empty(0, np.int64), np.arange(before), new)
        return appended(self._id_buffer, state.ids, new)

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

    def _covered(self, codes: _Codes, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        """Segments over the codes, where the method wants any."""
        scans = self.method == "scan" or (self.method == "auto" and self.n_bits > _TABLE_BITS)
        if scans or (self.compact and self.n_bits <= BUCKET_BITS):
            return ()
        return covered(Layout(self.n_bits, self.compact), codes, segments)

    def _compact(self) -> None:
        """Move the live rows together, and build their tables anew."""
        state = self._state
        self._buffer = np.ascontiguousarray(state.codes[state.live])
        self._id_buffer = state.ids_of(state.live)
        segments = self._covered(self._buffer, ())
        self._state = _State(self.n_bits, self._buffer, self._id_buffer, state.rising, None, 0, segments)

    def search(
        self, queries: Any, k: int, num_threads: int = -1, rows: Any = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The k nearest codes of each query: see :func:`knn_hamming`.

        Parameters
        ----------
        queries : uint8, shape (n_queries, n_bytes) or (n_bytes,)
        k : int, at least 0
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
        k, threads = check_int("k", k, 0), check_threads(num_threads)
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
        segments, arrays = for_file(state.segments)
        arrays |= {"codes": state.codes}
        if state.ids is not None:
            arrays["ids"] = state.ids
        if state.dead is not None:
            arrays["dead"] = state.dead
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
            ids = _as_ids(checked_array("ids", ids, np.int64, n), n)
        if dead is not None:
            dead = checked_array("dead", dead, np.uint8, (n + 7) // 8)
        n_dead = 0 if dead is None else int(_bits(dead).sum())
        self._next_id = check_int("next_id", meta.get("next_id", n), n if ids is None else int(ids.max(initial=-1)) + 1)
        rising = ids is None or bool((np.diff(ids) > 0).all())
        self._buffer, self._id_buffer = codes, np.empty(0, np.int64) if ids is None else ids
        segments = tuple(from_file(meta.get("segments", []), arrays, n, self.n_bits))
        if "segments" not in meta:  # a file from before there were any
            segments = self._covered(codes, ())
        self._state = _State(self.n_bits, codes, ids, rising, dead, n_dead, segments)
        if dead is not None and _bits(dead)[n:].any():
            raise ArgumentError("dead: expected no row beyond the last")
        if len(np.unique(self._state.ids_of(self._state.live))) != self._state.n_live:
            raise ArgumentError("ids: expected none twice")


# ---------------------------------------------------------------- searches; rows, not ids


def _nearest(state: _State, queries: _Codes, k: int, threads: int, subset: _Subset) -> tuple[_Distances, _Ints]:
    """The k nearest of a subset of the live rows, by (distance, row): by tables where there are any, else by a scan."""
    n, first, last = state.looked_at(subset)
    k = min(k, n)
    if not _pays(state, n, last) or k * _RANK_SHARE > n or k == 0 or len(queries) == 0:
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
    ids: _Ints = np.empty(distances.shape, np.int64)
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
    return bool(state.segments) and last > 0 and n > _segments.TAIL


def _budget(state: _State, n: int, n_queries: int) -> int:
    """How many entries a query may be compared with before it is left to the scan."""
    return n * state.codes.shape[1] // (_BUDGET if n_queries < _BATCH else _BATCH_BUDGET)


# ---------------------------------------------------------------- small things


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
    ids = np.atleast_1d(as_array("ids", value))
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu") or (n is not None and len(ids) != n):
        wanted = "(m,)" if n is None else f"({n},)"
        raise ArgumentError(f"ids: expected integers of shape {wanted}, got {ids.dtype} of shape {ids.shape}")
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) <= _MAX_ID:
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
