"""Exact search on packed codes by Hamming distance, in the fastest instruction set that the host has.

Codes are uint8 in :func:`numpy.packbits` order (see :mod:`fasthash.codes`). Every result is in order of
(distance, index), so it is the same for any instruction set and any number of threads.

Source of the search problems: Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing",
CVPR 2012 (k nearest neighbours, r-neighbours).
"""

import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._hamming import INDEX_BITS, MAX_BYTES, available_levels, knn, range_keys
from fasthash._parallel import map_jobs
from fasthash._storage import read_container, write_container
from fasthash._validation import as_codes, as_subset, check_choice, check_int, check_threads
from fasthash.codes import as_padded_codes
from fasthash.errors import ArgumentError, CorruptFileError, FastHashError

MAX_BITS = 8 * MAX_BYTES
METHODS = ("auto", "scan")

_KIND = "hamming-index"
_INDEX_BITS = np.uint64(INDEX_BITS)
_INDEX_MASK = np.uint64((1 << INDEX_BITS) - 1)
_ALL = slice(None)
_WORTH_A_THREAD = 1 << 20  # bytes of codes to compare: about as long as it takes to start one

_Codes = NDArray[np.uint8]
_Keys = NDArray[np.uint64]


def simd_level() -> str:
    """The instruction set in use: the best this host has, or the one the environment variable FASTHASH_SIMD names.

    One of "scalar", "popcnt", "avx2", "avx512", "avx512vpopcntdq" (x86-64), "neon" (AArch64).

    Raises
    ------
    FastHashError
        Where FASTHASH_SIMD names one that is unknown or that this host does not have.
    """
    return _LEVELS[_level()]


_LEVELS: tuple[str, ...] = available_levels()


def _level() -> int:
    forced = os.environ.get("FASTHASH_SIMD")
    if not forced:
        return len(_LEVELS) - 1
    if forced not in _LEVELS:
        raise FastHashError(f"FASTHASH_SIMD: {forced!r} is not available here; available: {', '.join(_LEVELS)}")
    return _LEVELS.index(forced)


def knn_hamming(
    queries: Any, codes: Any, k: int, num_threads: int = -1, rows: Any = None
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The k nearest codes of each query, exactly.

    Parameters
    ----------
    queries : uint8, shape (n_queries, n_bytes) or (n_bytes,)
    codes : uint8, shape (n, n_bytes), n_bytes from 1 to 512
    k : int, at least 0
    num_threads : int; -1 for every core this process may use
    rows : slice, bool mask of shape (n,), or integers of shape (m,), optional
        Look at these rows of ``codes`` only, whatever their order; below, n is how many they are.

    Returns
    -------
    distances : int32, shape (n_queries, min(k, n))
        Bits that differ, rising along each row.
    indices : int64, shape (n_queries, min(k, n))
        Rows of ``codes``; among equal distances the lowest come first. There are only ``n`` columns where k > n.

    Raises
    ------
    ArgumentError
        Where an array has another dtype or width, or k, num_threads or rows is out of range.
    """
    checked = _as_wide_codes("codes", codes)
    queries, k = as_codes("queries", queries, checked.shape[1]), check_int("k", k, 0)
    return _knn(queries, checked, k, check_threads(num_threads), as_subset(rows, len(checked)))


def range_hamming(
    queries: Any, codes: Any, radius: int, num_threads: int = -1, rows: Any = None
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Every code at most ``radius`` bits away from each query (the r-neighbours of Norouzi et al., 2012).

    The radius is inclusive: 0 finds the equal codes. (faiss's range search is not: its radius is ours plus one.)

    Parameters
    ----------
    queries : uint8, shape (n_queries, n_bytes) or (n_bytes,)
    codes : uint8, shape (n, n_bytes), n_bytes from 1 to 512
    radius : int, at least 0
    num_threads : int; -1 for every core this process may use
    rows : slice, bool mask of shape (n,), or integers of shape (m,), optional
        Look at these rows of ``codes`` only, whatever their order.

    Returns
    -------
    limits : int64, shape (n_queries + 1,)
        The hits of query i are ``distances[limits[i]:limits[i + 1]]``, and the same of ``indices``.
    distances : int32, shape (n_hits,)
    indices : int64, shape (n_hits,)
        Each query's hits are in order of (distance, index).

    Raises
    ------
    ArgumentError
        Where an array has another dtype or width, or radius, num_threads or rows is out of range.
    """
    checked = _as_wide_codes("codes", codes)
    queries, radius = as_codes("queries", queries, checked.shape[1]), check_int("radius", radius, 0)
    return _range(queries, checked, radius, check_threads(num_threads), as_subset(rows, len(checked)))


class HammingIndex:
    """Codes of one length, to add to and to search, exactly whatever the method.

    Any number of threads may search while another adds: a search sees the codes that were there when it began.

    Parameters
    ----------
    n_bits : int, from 1 to 4096
        Length of the codes; they take ``ceil(n_bits / 8)`` bytes each and their unused bits must be zero.
    method : "auto" or "scan"
        How to search. "scan" compares each query with every code; "auto", the default, takes whatever is fastest,
        which so far is always the scan.
    """

    def __init__(self, n_bits: int, method: str = "auto") -> None:
        self.n_bits = check_int("n_bits", n_bits, 1, MAX_BITS)
        self.method = check_choice("method", method, METHODS)
        self._adding = threading.Lock()
        self._buffer = np.empty((0, -(-self.n_bits // 8)), np.uint8)
        self._codes = self._buffer  # the rows in use; replaced as a whole, so that a search may keep the one it took

    @property
    def ntotal(self) -> int:
        """How many codes the index holds."""
        return len(self._codes)

    def __len__(self) -> int:
        return self.ntotal

    def add(self, codes: Any) -> None:
        """Append codes, uint8, shape (n, n_bytes) or (n_bytes,); they take the next indices.

        Raises ArgumentError where they have another dtype or width, or a one among their unused bits.
        """
        added = as_padded_codes("codes", codes, self.n_bits)
        with self._adding:
            before = len(self._codes)
            after = before + len(added)
            if after > len(self._buffer):  # doubling: each code is copied a bounded number of times
                grown = np.empty((max(after, 2 * len(self._buffer)), added.shape[1]), np.uint8)
                grown[:before] = self._codes
                self._buffer = grown
            self._buffer[before:after] = added  # no search has been given these rows yet
            self._codes = self._buffer[:after]

    def search(self, queries: Any, k: int, num_threads: int = -1) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The k nearest codes of each query: see :func:`knn_hamming`.

        Parameters
        ----------
        queries : uint8, shape (n_queries, n_bytes) or (n_bytes,)
        k : int, at least 1
        num_threads : int; -1 for every core this process may use

        Returns
        -------
        distances : int32, shape (n_queries, min(k, ntotal))
        indices : int64, shape (n_queries, min(k, ntotal))

        Raises
        ------
        ArgumentError
            Where queries has another dtype or width or a one among its unused bits, or a number is out of range.
        """
        checked = as_padded_codes("queries", queries, self.n_bits)
        return _knn(checked, self._codes, check_int("k", k, 1), check_threads(num_threads))

    def range_search(
        self, queries: Any, radius: int, num_threads: int = -1
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
        """Every code at most ``radius`` bits away from each query: see :func:`range_hamming`.

        Returns ``(limits, distances, indices)``: int64 (n_queries + 1,), int32 (n_hits,), int64 (n_hits,).
        Raises ArgumentError as :meth:`search` does.
        """
        checked = as_padded_codes("queries", queries, self.n_bits)
        return _range(checked, self._codes, check_int("radius", radius, 0), check_threads(num_threads))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index as one checksummed file, which appears whole or not at all."""
        write_container(path, _KIND, {"n_bits": self.n_bits, "method": self.method}, {"codes": self._codes})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "HammingIndex":
        """Read an index that :meth:`save` wrote.

        Raises CorruptFileError where the file is damaged, cut short or of another kind.
        """
        meta, arrays = read_container(path, _KIND)
        try:
            index = cls(meta["n_bits"], meta["method"])
            index._buffer = index._codes = as_padded_codes("codes", arrays["codes"], index.n_bits)
        except (KeyError, ArgumentError) as error:
            raise CorruptFileError(f"{path}: not a Hamming index that this fasthash can read: {error}") from error
        return index


def _as_wide_codes(name: str, value: Any) -> _Codes:
    codes = as_codes(name, value)
    if not 1 <= codes.shape[1] <= MAX_BYTES:
        raise ArgumentError(f"{name}: expected 1 to {MAX_BYTES} bytes a code, got {codes.shape[1]}")
    return codes


def _knn(
    queries: _Codes, codes: _Codes, k: int, threads: int, rows: slice | NDArray[np.int64] = _ALL
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Many queries are shared out among the threads; few queries see the codes shared out, and their hits merged."""
    if rows != _ALL if isinstance(rows, slice) else True:
        distances, indices = _knn(queries, codes[rows], k, threads)
        return distances, indices + rows.start if isinstance(rows, slice) else rows[indices]
    k = min(k, len(codes))
    if k == 0 or len(queries) == 0:
        return _decode(np.empty((len(queries), k), np.uint64))
    level = _level()
    threads = _useful_threads(len(queries) * codes.nbytes, threads)
    by_query = len(queries) >= 8 * threads  # then the slices come out about equal

    def scan(some: slice) -> _Keys:
        asked = queries[some] if by_query else queries
        seen, first = (codes, 0) if by_query else (codes[some], some.start)
        keys = np.empty((len(asked), min(k, len(seen))), np.uint64)
        knn(level, asked, seen, first, keys)
        return keys

    parts = map_jobs(scan, _slices(len(queries) if by_query else len(codes), threads), threads)
    if by_query or len(parts) == 1:
        return _decode(np.concatenate(parts))
    return _decode(np.sort(np.concatenate(parts, axis=1), axis=1)[:, :k])


def _range(
    queries: _Codes, codes: _Codes, radius: int, threads: int, rows: slice | NDArray[np.int64] = _ALL
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """One job per query and slice of the codes; a lone query sees as many slices as there are threads."""
    if rows != _ALL if isinstance(rows, slice) else True:
        limits, distances, indices = _range(queries, codes[rows], radius, threads)
        return limits, distances, indices + rows.start if isinstance(rows, slice) else rows[indices]
    level = _level()
    radius = min(radius, 8 * codes.shape[1])
    threads = _useful_threads(len(queries) * codes.nbytes, threads)
    slices = _slices(len(codes), 1 if len(queries) >= threads else threads)

    def scan(job: tuple[_Codes, slice]) -> _Keys:
        query, some = job
        keys = np.empty(1024, np.uint64)
        hits = range_keys(level, query, codes[some], some.start, radius, keys)
        if hits > len(keys):
            keys = np.empty(hits, np.uint64)
            range_keys(level, query, codes[some], some.start, radius, keys)
        return keys[:hits]

    parts = map_jobs(scan, [(query, some) for query in queries for some in slices], threads)
    per_query = [np.sort(np.concatenate(parts[i : i + len(slices)])) for i in range(0, len(parts), len(slices))]
    limits = np.zeros(len(queries) + 1, np.int64)
    np.cumsum([len(keys) for keys in per_query], out=limits[1:])
    return limits, *_decode(np.concatenate([np.empty(0, np.uint64), *per_query]))


def _decode(keys: _Keys) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    return (keys >> _INDEX_BITS).astype(np.int32), (keys & _INDEX_MASK).astype(np.int64)


def _useful_threads(work: int, threads: int) -> int:
    return max(1, min(threads, work // _WORTH_A_THREAD))


def _slices(n: int, parts: int) -> list[slice]:
    """Cut range(n) into ``parts`` slices of about equal length; fewer where some would be empty, but at least one."""
    parts = max(1, min(parts, n))
    return [slice(n * i // parts, n * (i + 1) // parts) for i in range(parts)]
