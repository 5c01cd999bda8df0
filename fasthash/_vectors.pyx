# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The thin typed bridge to csrc/vectors*: shapes and dtypes in, keys out. It trusts its caller (index.py) on values.

GIL contract: ``knn`` takes its memoryviews with the GIL, releases it for the whole scan, and raises nothing in between.
The kernels hold no state and allocate nothing, so any number of threads may run them at once, as long as each writes to
keys of its own. A ``level`` is a position in ``available_levels()``; all levels give the same keys.

A key is ``bits of the float32 distance << ROW_BITS | row``: the order of keys is the order of hits.
"""

from libc.stdint cimport int64_t, uint64_t


cdef extern from "vectors.h" nogil:
    const int VECTORS_ROW_BITS
    const int VECTORS_MAX_LEVELS

    ctypedef enum vectors_metric:
        VECTORS_L2
        VECTORS_COSINE

    ctypedef struct vectors_kernels:
        const char *name
        void (*knn)(vectors_metric metric, const float *queries, size_t n_queries, const float *rows, size_t dim,
                    const int64_t *ids, size_t first, size_t n, size_t k, uint64_t *keys) noexcept nogil

    size_t vectors_available(const vectors_kernels **levels) noexcept


METRIC_CODES = {"l2": VECTORS_L2, "cosine": VECTORS_COSINE}
ROW_BITS = VECTORS_ROW_BITS

cdef const vectors_kernels *_levels[VECTORS_MAX_LEVELS]
cdef size_t _n_levels = vectors_available(_levels)


def available_levels():
    """The names of the instruction sets this host can run, slowest first."""
    return tuple(_levels[i].name.decode() for i in range(_n_levels))


def knn(size_t level, vectors_metric metric, const float[:, ::1] queries, const float[:, ::1] rows,
        const int64_t[::1] ids, size_t start, size_t stop, uint64_t[:, ::1] keys):
    """Fill ``keys`` (n_queries, k) with each query's nearest of rows[start:stop], or of rows[ids[start:stop]]
    where ids is not None; 1 <= k <= stop - start."""
    cdef const int64_t *some = NULL
    if ids is not None:
        some = &ids[start]
    with nogil:
        _levels[level].knn(metric, &queries[0, 0], queries.shape[0], &rows[0, 0], queries.shape[1], some, start,
                           stop - start, keys.shape[1], &keys[0, 0])
