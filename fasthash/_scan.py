"""The exact scan of float vectors, and the keys that its hits are sorted by. It trusts its callers on every value."""

import numpy as np
from numpy.typing import NDArray

from fasthash._parallel import map_jobs
from fasthash._vectors import METRIC_CODES, ROW_BITS, available_levels, knn
from fasthash.hamming import best_levels, simd_level

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
Hits = tuple[Floats, Ints]

_ROW_MASK, _ROW_SHIFT = np.uint64((1 << ROW_BITS) - 1), np.uint64(ROW_BITS)
_LEVELS = best_levels(available_levels())
_WORTH_A_THREAD = 2**20  # coordinates to compare: about as long as it takes to start one


def level_in_use() -> int:
    """That of the kernels of `_vectors`, as a position in their ``available_levels()``."""
    return _LEVELS[simd_level()]


def nearest(queries: Floats, vectors: Floats, metric: str, k: int, threads: int, subset: Ints | None = None) -> Keys:
    """Keys (n_queries, min(k, n)) of the nearest of all n rows, or of a ``subset`` in any order, none twice.

    Many queries are shared out among the threads; few queries see the rows shared out, and their keys merged.
    """
    n = len(vectors) if subset is None else len(subset)
    keys = np.empty((len(queries), min(k, n)), np.uint64)
    if keys.size == 0:
        return keys
    level, code = level_in_use(), METRIC_CODES[metric]
    shares = max(1, min(threads, n, len(queries) * n * vectors.shape[1] // _WORTH_A_THREAD))

    def some_queries(share: int) -> None:
        part = slice(share * len(queries) // shares, (share + 1) * len(queries) // shares)
        knn(level, code, queries[part], vectors, subset, 0, n, keys[part])

    def some_rows(share: int) -> Keys:
        start, stop = share * n // shares, (share + 1) * n // shares
        found = np.empty((len(queries), min(k, stop - start)), np.uint64)
        knn(level, code, queries, vectors, subset, start, stop, found)
        return found

    if shares == 1 or len(queries) >= 4 * shares:
        map_jobs(some_queries, range(shares), shares)
        return keys
    return np.sort(np.concatenate(map_jobs(some_rows, range(shares), shares), axis=1), axis=1)[:, :k]


def within(query: Floats, vectors: Floats, metric: str, radius: np.float32, threads: int) -> Keys:
    """Keys (n_hits,) of all rows within the radius: more and more of the nearest, until one lies beyond it."""
    k = 64
    while True:
        keys = nearest(query[np.newaxis], vectors, metric, k, threads)[0]
        inside = int(np.searchsorted(decode(keys)[0], radius, side="right"))
        if inside < len(keys) or len(keys) == len(vectors):
            return keys[:inside]
        k *= 8


def decode(keys: Keys) -> Hits:
    """The distances, float32, and the rows, int64, of keys: both have their shape."""
    return (keys >> _ROW_SHIFT).astype(np.uint32).view(np.float32), (keys & _ROW_MASK).view(np.int64)
