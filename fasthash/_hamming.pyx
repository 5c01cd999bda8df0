# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The thin typed bridge to csrc/: shapes and dtypes in, keys out. It trusts its callers (hamming.py) on every value.

GIL contract: each function takes its memoryviews with the GIL, releases it for the whole scan, and raises nothing in
between. The kernels hold no state and allocate nothing, so any number of threads may run them at once, as long as each
writes to arrays of its own. A ``level`` is a position in ``available_levels()``.

The codes looked at are ``codes[start:stop]``, or with row numbers ``codes[rows[start:stop]]``, never none of them. A
key is ``distance << INDEX_BITS | index``: the order of keys is the order of hits.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t


cdef extern from "hamming.h" nogil:
    const int HAMMING_MAX_BYTES
    const int HAMMING_INDEX_BITS
    const int HAMMING_MAX_LEVELS

    ctypedef struct hamming_codes:
        const uint8_t *bytes
        size_t n_bytes
        const int64_t *rows
        size_t first
        size_t n

    ctypedef struct hamming_kernels:
        const char *name
        void (*knn)(const hamming_codes *codes, const uint8_t *queries, size_t n_queries, size_t k,
                    uint64_t *heaps) noexcept nogil
        void (*rank)(const hamming_codes *codes, const uint8_t *query, size_t k, uint64_t *keys) noexcept nogil
        size_t (*range)(const hamming_codes *codes, const uint8_t *query, unsigned radius, uint64_t *keys,
                        size_t capacity) noexcept nogil
        void (*distances)(const hamming_codes *codes, const uint8_t *query, int32_t *out) noexcept nogil
        void (*count)(const hamming_codes *codes, const uint8_t *query, const int64_t *labels,
                      const int64_t *weights, int64_t *counts) noexcept nogil

    size_t hamming_available(const hamming_kernels **levels) noexcept


MAX_BYTES = HAMMING_MAX_BYTES
INDEX_BITS = HAMMING_INDEX_BITS

cdef const hamming_kernels *_levels[HAMMING_MAX_LEVELS]
cdef size_t _n_levels = hamming_available(_levels)


def available_levels():
    """The names of the instruction sets this host can run, slowest first."""
    return tuple(_levels[i].name.decode() for i in range(_n_levels))


cdef hamming_codes _some(const uint8_t[:, ::1] codes, const int64_t[::1] rows, size_t start, size_t stop):
    cdef hamming_codes some
    some.bytes, some.n_bytes, some.rows, some.first, some.n = &codes[0, 0], codes.shape[1], NULL, start, stop - start
    if rows is not None:
        some.rows = &rows[start]
    return some


def knn(size_t level, const uint8_t[:, ::1] queries, const uint8_t[:, ::1] codes, const int64_t[::1] rows,
        size_t start, size_t stop, uint64_t[:, ::1] heaps):
    """Keep in ``heaps`` (n_queries, k), whose rows are max-heaps, the least keys of each query."""
    cdef hamming_codes some = _some(codes, rows, start, stop)
    with nogil:
        _levels[level].knn(&some, &queries[0, 0], queries.shape[0], heaps.shape[1], &heaps[0, 0])


def rank(size_t level, const uint8_t[::1] query, const uint8_t[:, ::1] codes, const int64_t[::1] rows, size_t start,
         size_t stop, uint64_t[::1] keys):
    """Fill ``keys`` (k,), k at most the number of codes, with the keys of the nearest, in order."""
    cdef hamming_codes some = _some(codes, rows, start, stop)
    with nogil:
        _levels[level].rank(&some, &query[0], keys.shape[0], &keys[0])


def range_keys(size_t level, const uint8_t[::1] query, const uint8_t[:, ::1] codes, const int64_t[::1] rows,
               size_t start, size_t stop, unsigned radius, uint64_t[::1] keys):
    """Fill ``keys`` with the codes within ``radius``, in index order; return how many there are, written or not."""
    cdef hamming_codes some = _some(codes, rows, start, stop)
    cdef size_t hits
    with nogil:
        hits = _levels[level].range(&some, &query[0], radius, &keys[0], keys.shape[0])
    return hits


def distances(size_t level, const uint8_t[::1] query, const uint8_t[:, ::1] codes, int32_t[::1] out):
    """Fill ``out`` (n_codes,) with the distance of every code."""
    cdef hamming_codes some = _some(codes, None, 0, codes.shape[0])
    with nogil:
        _levels[level].distances(&some, &query[0], &out[0])


def count(size_t level, const uint8_t[::1] query, const uint8_t[:, ::1] codes, const int64_t[::1] labels,
          const int64_t[::1] weights, int64_t[:, ::1] counts):
    """Add weights[i] to counts[labels[i], distance of code i]; ``counts`` is (n_labels, 8 * n_bytes + 1)."""
    cdef hamming_codes some = _some(codes, None, 0, codes.shape[0])
    with nogil:
        _levels[level].count(&some, &query[0], &labels[0], &weights[0], &counts[0, 0])
