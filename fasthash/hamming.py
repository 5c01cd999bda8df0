"""Exact search on packed codes by Hamming distance, in the fastest instruction set that the host has.

Codes are uint8 in :func:`numpy.packbits` order (see :mod:`fasthash.codes`). Every result is in order of
(distance, index), so it is the same for any instruction set and any number of threads. How it is done is told in
docs/hamming.md.

Source of the search problems: Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing",
CVPR 2012 (k nearest neighbours, r-neighbours).
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash import _hamming
from fasthash._hamming import INDEX_BITS, MAX_BYTES, available_levels
from fasthash._parallel import map_jobs
from fasthash._validation import as_array, as_codes, as_subset, check_int, check_threads
from fasthash.errors import ArgumentError, FastHashError

MAX_BITS = 8 * MAX_BYTES

_INDEX_BITS = np.uint64(INDEX_BITS)
_INDEX_MASK = np.uint64((1 << INDEX_BITS) - 1)
_NONE_YET = np.uint64(2**64 - 1)  # in a heap: a place for any key
_RANK_SHARE = 64  # for more than 1/64 of all codes, counting distances beats a heap
_SHARE = 32  # queries that are worth a thread's reading all codes
_BATCH = 128  # queries whose hits are kept at a time
_WORTH_A_THREAD = 1 << 23  # bytes of codes to compare: a few times as long as it takes to start one

_Codes = NDArray[np.uint8]
_Keys = NDArray[np.uint64]
_Rows = slice | NDArray[np.int64]  # as as_subset gives them; a plain slice(None) is all of them
_ALL = slice(None)
_MAX_LABELS = 1 << 16


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


def best_levels(own: tuple[str, ...]) -> dict[str, int]:
    """For each level of this host, by name, the best of some other kernels' ``own`` that does not exceed it."""
    return {name: sum(each in _LEVELS[: i + 1] for each in own) - 1 for i, name in enumerate(_LEVELS)}


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


def pairwise_hamming(a: Any, b: Any, num_threads: int = -1) -> NDArray[np.int32]:
    """The distance of every code of ``a`` to every code of ``b``.

    Parameters
    ----------
    a : uint8, shape (n_a, n_bytes) or (n_bytes,)
    b : uint8, shape (n_b, n_bytes) or (n_bytes,), n_bytes from 1 to 512
    num_threads : int; -1 for every core this process may use

    Returns
    -------
    int32, shape (n_a, n_b)
        Bits that differ. The dtype is that of all distances here, and signed, so that differences do not wrap around.

    Raises
    ------
    ArgumentError
        Where an array has another dtype or width, or num_threads is out of range.
    """
    codes = _as_wide_codes("b", b)
    queries, threads = as_codes("a", a, codes.shape[1]), check_threads(num_threads)
    level = _level()
    distances = np.empty((len(queries), len(codes)), np.int32)

    def measure(row: int) -> None:
        _hamming.distances(level, queries[row], codes, distances[row])

    if distances.size:
        map_jobs(measure, range(len(queries)), _useful_threads(len(queries) * codes.nbytes, threads))
    return distances


def count_hamming(queries: Any, codes: Any, labels: Any = None, num_threads: int = -1) -> NDArray[np.int64]:
    """How many codes lie at each distance from each query: a ranking of all codes with its ties grouped.

    It holds all that a measure needs which does not depend on the order of equally near codes, such as the mean
    average precision over all orders, and takes (n_bits + 1) numbers a query and label where the ranking takes n.
    Codes of up to 16 bits are counted first, so that a query costs what there are different codes, however many codes.

    Parameters
    ----------
    queries : uint8, shape (n_queries, n_bytes) or (n_bytes,)
    codes : uint8, shape (n, n_bytes), n_bytes from 1 to 512
    labels : integers from 0, shape (n,), optional
        A class for each code. Keep them small: there is a row for each number up to the greatest.
    num_threads : int; -1 for every core this process may use

    Returns
    -------
    int64, shape (n_queries, n_labels, 8 * n_bytes + 1), or (n_queries, 8 * n_bytes + 1) without labels
        ``[q, label, d]`` codes of that label are d bits away from query q. ``n_labels`` is the greatest label plus one.

    Raises
    ------
    ArgumentError
        Where an array has another dtype, width or length, or num_threads is out of range.
    """
    checked = _as_wide_codes("codes", codes)
    queries, threads = as_codes("queries", queries, checked.shape[1]), check_threads(num_threads)
    classes = np.zeros(len(checked), np.int64) if labels is None else _as_labels(labels, len(checked))
    n_labels = 1 if labels is None else int(classes.max(initial=-1)) + 1
    counts = np.zeros((len(queries), n_labels, 8 * checked.shape[1] + 1), np.int64)
    level, weights = _level(), np.ones(len(checked), np.int64)
    if checked.shape[1] <= 2:
        checked, classes, weights = _distinct(checked, classes)

    def count(row: int) -> None:
        _hamming.count(level, queries[row], checked, classes, weights, counts[row])

    if len(checked) and len(queries):
        map_jobs(count, range(len(queries)), _useful_threads(len(queries) * checked.nbytes, threads))
    return counts[:, 0] if labels is None else counts


def _as_labels(value: Any, n: int) -> NDArray[np.int64]:
    labels = as_array("labels", value)
    if labels.shape != (n,) or (n and labels.dtype.kind not in "iu"):
        raise ArgumentError(f"labels: expected integers of shape ({n},), got {labels.dtype} of shape {labels.shape}")
    if n and not 0 <= labels.min() <= labels.max() < _MAX_LABELS:
        got = f"{labels.min()} to {labels.max()}"
        raise ArgumentError(f"labels: expected integers in [0, {_MAX_LABELS}), got {got}")
    return labels.astype(np.int64)


def _distinct(codes: _Codes, labels: NDArray[np.int64]) -> tuple[_Codes, NDArray[np.int64], NDArray[np.int64]]:
    """The different pairs of a code of one or two bytes and a label, and how often each of them occurs."""
    n_bytes = codes.shape[1]
    values = codes[:, 0].astype(np.int64) if n_bytes == 1 else codes.view(np.dtype("<u2"))[:, 0].astype(np.int64)
    pairs, weights = np.unique(labels << 16 | values, return_counts=True)
    low_bytes = (pairs & 0xFFFF).astype("<u2").view(np.uint8).reshape(-1, 2)
    return np.ascontiguousarray(low_bytes[:, :n_bytes]), pairs >> 16, weights.astype(np.int64)


def _as_wide_codes(name: str, value: Any) -> _Codes:
    codes = as_codes(name, value)
    if not 1 <= codes.shape[1] <= MAX_BYTES:
        raise ArgumentError(f"{name}: expected 1 to {MAX_BYTES} bytes a code, got {codes.shape[1]}")
    return codes


def _knn(
    queries: _Codes, codes: _Codes, k: int, threads: int, rows: _Rows = _ALL
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Many queries are shared out among the threads; few queries see the codes shared out, and their hits merged.

    Where k is no small share of the codes, distances are counted, and each query is a job.
    """
    ids, start, stop = _looked_at(rows, len(codes))
    k = min(k, stop - start)
    keys = np.empty((len(queries), k), np.uint64)
    if keys.size == 0:
        return _decode(keys)
    level = _level()
    threads = _useful_threads(len(queries) * (stop - start) * codes.shape[1], threads)

    def rank(row: int) -> None:
        _hamming.rank(level, queries[row], codes, ids, start, stop, keys[row])

    def some_queries(some: slice) -> None:
        keys[some] = _NONE_YET
        _hamming.knn(level, queries[some], codes, ids, start, stop, keys[some])
        keys[some].sort(axis=1)

    parts = iter(_slices(start, stop, 1 if threads == 1 else 4 * threads))

    def some_codes(_: int) -> _Keys:
        """Whoever is free takes the next part; a thread's heaps go on, as its parts come in order of index."""
        heaps = np.full(keys.shape, _NONE_YET)
        for part in parts:
            _hamming.knn(level, queries, codes, ids, part.start, part.stop, heaps)
        return heaps

    if k * _RANK_SHARE > stop - start:
        map_jobs(rank, range(len(queries)), threads)
    elif len(queries) >= _SHARE * threads:
        map_jobs(some_queries, _slices(0, len(queries), max(threads, -(-len(queries) // _BATCH))), threads)
    else:
        keys = np.sort(np.concatenate(map_jobs(some_codes, range(threads), threads), axis=1), axis=1)[:, :k]
    return _decode(keys)


def _range(
    queries: _Codes, codes: _Codes, radius: int, threads: int, rows: _Rows = _ALL
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """One job per query and part of the codes; few queries see as many parts as there are threads."""
    ids, start, stop = _looked_at(rows, len(codes))
    level = _level()
    radius = min(radius, 8 * codes.shape[1])
    threads = _useful_threads(len(queries) * (stop - start) * codes.shape[1], threads)
    parts = _slices(start, stop, 1 if len(queries) >= threads else threads)

    def scan(job: tuple[_Codes, slice]) -> _Keys:
        query, part = job
        if part.start == part.stop:
            return np.empty(0, np.uint64)
        keys = np.empty(1024, np.uint64)
        hits = _hamming.range_keys(level, query, codes, ids, part.start, part.stop, radius, keys)
        if hits > len(keys):
            keys = np.empty(hits, np.uint64)
            _hamming.range_keys(level, query, codes, ids, part.start, part.stop, radius, keys)
        return keys[:hits]

    found = map_jobs(scan, [(query, part) for query in queries for part in parts], threads)
    per_query = [np.sort(np.concatenate(found[i : i + len(parts)])) for i in range(0, len(found), len(parts))]
    limits = np.zeros(len(queries) + 1, np.int64)
    np.cumsum([len(keys) for keys in per_query], out=limits[1:])
    return limits, *_decode(np.concatenate([np.empty(0, np.uint64), *per_query]))


def _looked_at(rows: _Rows, n: int) -> tuple[NDArray[np.int64] | None, int, int]:
    """What the kernels are given: row numbers if need be, and from where to where to look, in them or in the codes."""
    if isinstance(rows, slice):
        return None, *rows.indices(n)[:2]
    return rows, 0, len(rows)


def _decode(keys: _Keys) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    return (keys >> _INDEX_BITS).astype(np.int32), (keys & _INDEX_MASK).astype(np.int64)


def _useful_threads(work: int, threads: int) -> int:
    return max(1, min(threads, work // _WORTH_A_THREAD))


def _slices(start: int, stop: int, parts: int) -> list[slice]:
    """Cut a range into ``parts`` slices of about equal length; fewer where some would be empty, but at least one."""
    n = stop - start
    parts = max(1, min(parts, n))
    return [slice(start + n * i // parts, start + n * (i + 1) // parts) for i in range(parts)]
