# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The thin typed bridge to csrc/: shapes and dtypes in, keys out. It trusts its callers (hamming.py) on every value.

GIL contract: ``knn`` and ``range_keys`` take their memoryviews with the GIL, release it for the whole scan, and raise
nothing in between. The kernels hold no state and allocate nothing, so any number of threads may run them at once, as
long as each writes to keys of its own. A ``level`` is a position in ``available_levels()``.

A key is ``distance << INDEX_BITS | index``: the order of keys is the order of hits.
"""

from libc.stdint cimport uint8_t, uint64_t


cdef extern from "hamming.h" nogil:
    const int HAMMING_MAX_BYTES
    const int HAMMING_INDEX_BITS
    const int HAMMING_MAX_LEVELS

    ctypedef struct hamming_kernels:
        const char *name
        void (*knn)(const uint8_t *queries, size_t n_queries, const uint8_t *codes, size_t n_codes, size_t n_bytes,
                    uint64_t first, size_t k, uint64_t *keys) noexcept nogil
        size_t (*range)(const uint8_t *query, const uint8_t *codes, size_t n_codes, size_t n_bytes, uint64_t first,
                        unsigned radius, uint64_t *keys, size_t capacity) noexcept nogil

    size_t hamming_available(const hamming_kernels **levels) noexcept


MAX_BYTES = HAMMING_MAX_BYTES
INDEX_BITS = HAMMING_INDEX_BITS

cdef const hamming_kernels *_levels[HAMMING_MAX_LEVELS]
cdef size_t _n_levels = hamming_available(_levels)


def available_levels():
    """The names of the instruction sets this host can run, slowest first."""
    return tuple(_levels[i].name.decode() for i in range(_n_levels))


def knn(size_t level, const uint8_t[:, ::1] queries, const uint8_t[:, ::1] codes, uint64_t first,
        uint64_t[:, ::1] keys):
    """Fill ``keys`` (n_queries, k), k <= n_codes, with each query's nearest codes; ``first`` is codes[0]'s index."""
    with nogil:
        _levels[level].knn(&queries[0, 0], queries.shape[0], &codes[0, 0], codes.shape[0], codes.shape[1],
                           first, keys.shape[1], &keys[0, 0])


def range_keys(size_t level, const uint8_t[::1] query, const uint8_t[:, ::1] codes, uint64_t first, unsigned radius,
               uint64_t[::1] keys):
    """Fill ``keys`` with the codes within ``radius``, in index order; return how many there are, written or not."""
    cdef size_t hits
    with nogil:
        hits = _levels[level].range(&query[0], &codes[0, 0], codes.shape[0], codes.shape[1], first, radius,
                                    &keys[0], keys.shape[0])
    return hits
