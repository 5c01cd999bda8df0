# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The thin typed bridge to csrc/tiles*: tiles in, pixels out. It trusts its caller (_bands.py) on everything but the
streams.

GIL contract: each function takes its memoryviews with the GIL, releases it for the whole work, and raises nothing in
between. The kernels hold no state and allocate nothing, so any number of threads may run them at once, as long as each
writes to arrays of its own. A ``level`` is a position in ``available_levels()``; all levels give the same bits.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t


cdef extern from "tiles.h" nogil:
    const int TILES_MAX_LEVELS
    const int TILES_RANDOM

    ctypedef enum tiles_dither:
        TILES_NO_DITHER
        TILES_DITHER_1
        TILES_DITHER_2

    ctypedef struct tiles_plane:
        size_t height, width, tile_rows, tile_cols
        const uint8_t *heap
        size_t heap_size
        const int64_t *starts
        const int64_t *lengths
        int bytepix
        size_t blocksize
        const double *scales
        const double *zeros
        int single, has_blank
        int32_t blank
        tiles_dither dither
        const float *random
        size_t seed

    ctypedef struct tiles_kernels:
        const char *name
        ptrdiff_t (*decode)(const tiles_plane *plane, size_t first, size_t last, int32_t *integers,
                            float *out) noexcept nogil
        void (*count)(const float *pixels, size_t n, size_t *finite, size_t *infinite) noexcept nogil

    size_t tiles_available(const tiles_kernels **levels) noexcept
    uint64_t tiles_datasum(const uint8_t *words, size_t n) noexcept


RANDOM = TILES_RANDOM
DITHERS = {"NO_DITHER": TILES_NO_DITHER, "SUBTRACTIVE_DITHER_1": TILES_DITHER_1, "SUBTRACTIVE_DITHER_2": TILES_DITHER_2}

cdef const tiles_kernels *_levels[TILES_MAX_LEVELS]
cdef size_t _n_levels = tiles_available(_levels)


def available_levels():
    """The names of the instruction sets this host can run, slowest first."""
    return tuple(_levels[i].name.decode() for i in range(_n_levels))


cdef class RicePlane:
    """An image of Rice-compressed tiles; the fields are those of tiles_plane in csrc/tiles.h."""

    cdef tiles_plane plane
    cdef tuple alive

    def __init__(self, shape, tile, const uint8_t[::1] heap, const int64_t[::1] starts, const int64_t[::1] lengths,
                 int bytepix, size_t blocksize, const double[::1] scales, const double[::1] zeros, bint single,
                 blank, tiles_dither dither, const float[::1] random, size_t seed):
        self.alive = heap, starts, lengths, scales, zeros, random
        self.plane.height, self.plane.width = shape
        self.plane.tile_rows, self.plane.tile_cols = tile
        self.plane.heap, self.plane.heap_size = &heap[0], heap.shape[0]
        self.plane.starts, self.plane.lengths = &starts[0], &lengths[0]
        self.plane.bytepix, self.plane.blocksize = bytepix, blocksize
        self.plane.scales, self.plane.zeros, self.plane.single = &scales[0], &zeros[0], single
        self.plane.has_blank, self.plane.blank = blank is not None, 0 if blank is None else blank
        self.plane.dither, self.plane.random, self.plane.seed = dither, &random[0], seed

    def decode(self, size_t level, size_t first, size_t last, int32_t[::1] integers, float[:, ::1] out):
        """Fill ``out`` with the rows of tiles [first, last); the number of a damaged tile, or -1."""
        cdef ptrdiff_t damaged
        with nogil:
            damaged = _levels[level].decode(&self.plane, first, last, &integers[0], &out[0, 0])
        return damaged


def count(size_t level, const float[:, ::1] pixels):
    """How many pixels, at least one, are finite, and how many infinite."""
    cdef size_t finite, infinite
    with nogil:
        _levels[level].count(&pixels[0, 0], <size_t>pixels.shape[0] * <size_t>pixels.shape[1], &finite, &infinite)
    return finite, infinite


def datasum(const uint8_t[::1] words):
    """The sum of the big-endian 32-bit words of a length that is a multiple of four, carries not yet added."""
    cdef uint64_t total = 0
    cdef size_t n = words.shape[0] // 4
    if n:
        with nogil:
            total = tiles_datasum(&words[0], n)
    return total
