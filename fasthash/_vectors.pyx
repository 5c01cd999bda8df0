# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The thin typed bridge to csrc/vectors*: shapes and dtypes in, keys out. It trusts its callers (index.py, _graph.py) on
values.

GIL contract: calls take their memoryviews with the GIL, release it for the whole search, and raise nothing in between.
The kernels hold no state and allocate nothing, so any number of threads may run them at once, as long as each writes to
keys of its own. A ``level`` is a position in ``available_levels()``; all levels give the same keys.

A key is ``bits of the float32 distance << ROW_BITS | row``: the order of keys is the order of hits.
"""

import numpy as np

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "vectors.h" nogil:
    const int VECTORS_ROW_BITS
    const int VECTORS_MAX_LEVELS

    ctypedef enum vectors_metric:
        VECTORS_L2
        VECTORS_COSINE

    const int VECTORS_STRIDE
    const int VECTORS_MAX_LINKS
    const float VECTORS_LEAST
    const float VECTORS_GREATEST

    ctypedef struct vectors_graph:
        const float *points
        const uint32_t *rows
        const uint32_t *links
        const uint32_t *upper
        const uint32_t *upper_at
        size_t n_nodes, width, n_links, n_upper, top
        uint32_t entry

    ctypedef struct vectors_scratch:
        size_t ef
        uint64_t *pool
        uint64_t *seen
        float *point

    ctypedef struct vectors_kernels:
        const char *name
        void (*knn)(vectors_metric metric, const float *queries, size_t n_queries, const float *rows, size_t dim,
                    const int64_t *ids, size_t first, size_t n, size_t k, uint64_t *keys) noexcept nogil
        size_t (*search)(const vectors_graph *graph, vectors_metric metric, const float *queries, size_t n_queries,
                         const float *rows, size_t dim, const int64_t *extra, size_t n_extra, size_t k,
                         const vectors_scratch *scratch, uint64_t *keys) noexcept nogil

    size_t vectors_available(const vectors_kernels **levels) noexcept


METRIC_CODES = {"l2": VECTORS_L2, "cosine": VECTORS_COSINE}
ROW_BITS = VECTORS_ROW_BITS
STRIDE = VECTORS_STRIDE
MAX_LINKS = VECTORS_MAX_LINKS
LEAST, GREATEST = VECTORS_LEAST, VECTORS_GREATEST

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


cdef class Nodes:
    """A graph of at least one node, as csrc/vectors.h says: arrays that nothing changes while it lives."""

    cdef vectors_graph graph
    cdef object owner

    def __cinit__(self, const float[:, ::1] points, const uint32_t[::1] rows, const uint32_t[:, ::1] links,
                  const uint32_t[:, ::1] upper, const uint32_t[::1] upper_at, uint32_t entry, size_t top):
        self.graph.points, self.graph.n_nodes, self.graph.width = &points[0, 0], points.shape[0], points.shape[1]
        self.graph.rows, self.graph.upper_at = &rows[0], &upper_at[0]
        self.graph.links, self.graph.n_links = &links[0, 0], links.shape[1]
        self.graph.n_upper, self.graph.entry, self.graph.top = upper.shape[1], entry, top
        if upper.shape[0]:
            self.graph.upper = &upper[0, 0]
        self.owner = points, rows, links, upper, upper_at

    def search(self, size_t level, vectors_metric metric, const float[:, ::1] queries, const float[:, ::1] rows,
               const int64_t[::1] extra, size_t ef, uint64_t[:, ::1] keys):
        """Fill ``keys`` (n_queries, k), 1 <= k <= ef, with the nearest of the nodes met and the rows ``extra``.

        Returns how many queries failed; their first key is the greatest there is.
        """
        cdef uint64_t[::1] pool = np.empty(ef + 1, np.uint64), seen = np.empty(self.graph.n_nodes // 64 + 1, np.uint64)
        cdef float[::1] point = np.empty(self.graph.width, np.float32)
        cdef vectors_scratch scratch = vectors_scratch(ef, &pool[0], &seen[0], &point[0])
        cdef const int64_t *others = NULL
        cdef size_t failed
        if extra.shape[0]:
            others = &extra[0]
        with nogil:
            failed = _levels[level].search(&self.graph, metric, &queries[0, 0], queries.shape[0], &rows[0, 0],
                                           queries.shape[1], others, extra.shape[0], keys.shape[1], &scratch,
                                           &keys[0, 0])
        return failed
