/* Tiles of FITS images (standard 4.0, section 10): Rice streams to float32 pixels, and the one way to reach them.
 *
 * All instruction sets give the same bits. The streams are untrusted: nothing is read beyond the heap nor written beyond
 * the tile, whatever they hold. Everything else callers have checked: nothing here allocates or keeps state.
 */
#ifndef FASTHASH_TILES_H
#define FASTHASH_TILES_H

#include <stddef.h>
#include <stdint.h>

#define TILES_MAX_LEVELS 2
#define TILES_RANDOM 10000 /* numbers in the table of dithers (appendix I) */

typedef enum { TILES_NO_DITHER, TILES_DITHER_1, TILES_DITHER_2 } tiles_dither;

/* A plane of height x width pixels in tiles of tile_rows x tile_cols, those at the edges smaller, row by row. */
typedef struct tiles_plane {
    size_t height, width, tile_rows, tile_cols;
    const uint8_t *heap;
    size_t heap_size;
    const int64_t *starts, *lengths; /* of each tile's stream in the heap */
    int bytepix;                     /* 1 (unsigned), 2 or 4 (signed) bytes an integer */
    size_t blocksize;                /* integers that share a number of split bits */

    /* A pixel is integer * scale + zero, with the tile's own scale and zero, in float64, or in float32 where single is
     * set; NaN where has_blank is set and the integer is blank. With a dither, the number random[] of tile t and
     * pixel i less 0.5 is taken from the integer first; tile 0 starts at place seed of the table. */
    const double *scales, *zeros;
    int single, has_blank;
    int32_t blank;
    tiles_dither dither;
    const float *random;
    size_t seed;
} tiles_plane;

typedef struct tiles_kernels {
    const char *name;

    /* The pixels of tiles in the rows of tiles first, ..., last - 1, to out, whole rows of the plane; a tile without a
     * stream is passed over. Integers has room for a tile. Returns the number of a damaged tile, or -1. */
    ptrdiff_t (*decode)(const tiles_plane *plane, size_t first, size_t last, int32_t *integers, float *out);

    /* How many of n pixels are finite, and how many infinite. */
    void (*count)(const float *pixels, size_t n, size_t *finite, size_t *infinite);
} tiles_kernels;

/* The instruction sets this host can run, slowest first. Returns how many. */
size_t tiles_available(const tiles_kernels *levels[TILES_MAX_LEVELS]);

/* The sum of n big-endian words of 32 bits (appendix J), carries not yet added. */
uint64_t tiles_datasum(const uint8_t *words, size_t n);

#if defined(__x86_64__)
#define TILES_X86 1
#endif

extern const tiles_kernels tiles_scalar;
extern const tiles_kernels tiles_avx2;

#endif
