# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The thin typed bridge to csrc/multi_index*. It trusts its callers (hamming_index.py) on every value.

GIL contract: calls take their memoryviews with the GIL, release it for the whole of the work, and raise nothing in
between. A `Snapshot` never changes, and the kernels hold no state and allocate nothing, so any number of threads may
search it at once. A ``level`` is a position in ``available_levels()``.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
cdef extern from "stdint.h":
    const uint64_t UINT64_MAX

from libc.stdlib cimport calloc, free


cdef extern from "multi_index.h" nogil:
    const int HAMMING_INDEX_BITS
    const int MULTI_INDEX_MAX_LEVELS
    const int MULTI_INDEX_MAX_TABLES
    const int MULTI_INDEX_MAX_KEY_BITS
    const int MULTI_INDEX_WORD
    const int MULTI_INDEX_PADDING

    ctypedef struct multi_index_table:
        unsigned first_bit, key_bits
        const uint32_t *offsets
        const uint32_t *rows
        const uint8_t *words
        unsigned word_at, word_bytes

    ctypedef struct multi_index_segment:
        uint64_t first, count
        unsigned n_tables
        multi_index_table *tables

    ctypedef struct multi_index:
        const uint8_t *codes
        size_t n_codes, n_bytes, n_bits
        const uint8_t *dead
        const multi_index_segment *segments
        size_t n_segments

    ctypedef struct multi_index_task:
        uint64_t first, last, budget

    ctypedef struct multi_index_kernels:
        const char *name
        void (*knn)(const multi_index *index, const uint8_t *queries, size_t n_queries, const multi_index_task *task,
                    size_t k, uint64_t *keys) noexcept nogil
        int (*range)(const multi_index *index, const uint8_t *query, const multi_index_task *task, unsigned radius,
                     uint64_t *keys, size_t capacity, size_t *hits) noexcept nogil

    size_t multi_index_available(const multi_index_kernels **levels) noexcept
    void multi_index_build(const multi_index_table *table, const uint8_t *codes, size_t count, size_t n_bytes) noexcept


MAX_TABLES = MULTI_INDEX_MAX_TABLES
MAX_KEY_BITS = MULTI_INDEX_MAX_KEY_BITS
WORD = MULTI_INDEX_WORD
PADDING = MULTI_INDEX_PADDING

cdef const multi_index_kernels *_levels[MULTI_INDEX_MAX_LEVELS]
cdef size_t _n_levels = multi_index_available(_levels)
cdef uint64_t ROW_MASK = (<uint64_t>1 << HAMMING_INDEX_BITS) - 1


def available_levels():
    """The names of the instruction sets this host can run, slowest first."""
    return tuple(_levels[i].name.decode() for i in range(_n_levels))


cdef void decode(size_t k, int32_t *distances, int64_t *indices) noexcept nogil:
    """Keys, in the place of indices, to distances and rows."""
    cdef size_t i
    cdef uint64_t key
    for i in range(k):
        key = <uint64_t>indices[i]
        distances[i] = <int32_t>(key >> HAMMING_INDEX_BITS)
        indices[i] = <int64_t>(key & ROW_MASK)


cdef multi_index_table as_table(table):
    """A `Table` of hamming_index.py, as C sees it. It owns the arrays."""
    cdef const uint32_t[::1] offsets = table.offsets, rows = table.rows
    cdef const uint8_t[::1] words
    cdef multi_index_table seen
    seen.first_bit, seen.key_bits = table.first_bit, table.key_bits
    seen.offsets, seen.rows = &offsets[0], &rows[0]
    seen.words = NULL
    seen.word_at, seen.word_bytes = table.word_at, 0
    if table.words is not None:
        words = table.words
        seen.words = &words[0]
        seen.word_bytes = (words.shape[0] - MULTI_INDEX_PADDING) // rows.shape[0]
    return seen


def build(table, const uint8_t[:, ::1] codes):
    """Fill the arrays of a table with at least one code; none of them is in use yet."""
    cdef multi_index_table seen = as_table(table)
    with nogil:
        multi_index_build(&seen, &codes[0, 0], codes.shape[0], codes.shape[1])


cdef class Snapshot:
    """The codes (n, n_bytes), n at least 1, of an index at one moment, with segments over the first of them, and
    with ``dead``, a bit for each row, or None."""

    cdef multi_index index
    cdef multi_index_segment *segments
    cdef object owner

    def __cinit__(self, const uint8_t[:, ::1] codes, size_t n_bits, const uint8_t[::1] dead, segments):
        self.segments = <multi_index_segment *>calloc(len(segments) + 1, sizeof(multi_index_segment))
        if self.segments is NULL:
            raise MemoryError
        for i, segment in enumerate(segments):
            self.segments[i].first, self.segments[i].count = segment.first, segment.count
            self.segments[i].n_tables = len(segment.tables)
            for j, table in enumerate(segment.tables):
                self.segments[i].tables[j] = as_table(table)
        self.index.codes, self.index.n_codes, self.index.n_bytes = &codes[0, 0], codes.shape[0], codes.shape[1]
        self.index.n_bits = n_bits
        if dead is not None:
            self.index.dead = &dead[0]
        self.index.segments, self.index.n_segments = self.segments, len(segments)
        self.owner = codes, dead, segments

    def __dealloc__(self):
        free(self.segments)

    def knn(self, size_t level, const uint8_t[:, ::1] queries, uint64_t first, uint64_t last, uint64_t budget,
            int32_t[:, ::1] distances, int64_t[:, ::1] indices):
        """The nearest of rows first to last - 1; a query whose budget runs out gets -1 as its first distance.

        The hits, (n_queries, k), are at most as many as there are rows, and k is at least 1. Returns how many queries
        are left.
        """
        cdef multi_index_task task = multi_index_task(first, last, budget)
        cdef size_t q, k = indices.shape[1], left = 0
        with nogil:
            _levels[level].knn(&self.index, &queries[0, 0], queries.shape[0], &task, k, <uint64_t *>&indices[0, 0])
            for q in range(<size_t>queries.shape[0]):
                if <uint64_t>indices[q, 0] != UINT64_MAX:
                    decode(k, &distances[q, 0], &indices[q, 0])
                else:
                    distances[q, 0] = -1
                    left += 1
        return left

    def range_keys(self, size_t level, const uint8_t[::1] query, uint64_t first, uint64_t last, uint64_t budget,
                   unsigned radius, uint64_t[::1] keys):
        """Fill ``keys`` with rows within the radius, in any order; return how many there are, or -1 without budget."""
        cdef multi_index_task task = multi_index_task(first, last, budget)
        cdef size_t hits
        cdef int complete
        with nogil:
            complete = _levels[level].range(&self.index, &query[0], &task, radius, &keys[0], keys.shape[0], &hits)
        return hits if complete else -1
