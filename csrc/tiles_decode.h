/* Tiles to pixels, compiled once per instruction set; TARGET names it. */
#include "tiles_rice.h"

#include <math.h>

#define ZERO_PIXEL (-2147483646) /* stands for exactly 0 with SUBTRACTIVE_DITHER_2 */

/* Pixels of one row of a tile, in loops that run in vectors. */
#define SCALE_ROW(real)                                                                                                \
    do {                                                                                                               \
        const real a = (real)scale, b = (real)zero;                                                                    \
        for (size_t i = 0; i < n; i++)                                                                                 \
            out[i] = (float)((real)integers[i] * a + b);                                                               \
    } while (0)

TARGET static void scale_row(const tiles_plane *plane, double scale, double zero, const int32_t *restrict integers,
                             size_t n, float *restrict out)
{
    if (plane->single)
        SCALE_ROW(float);
    else
        SCALE_ROW(double);
    if (!plane->has_blank)
        return;
    const int32_t blank = plane->blank;
    for (size_t i = 0; i < n; i++)
        out[i] = integers[i] == blank ? NAN : out[i];
}

typedef struct dither_place {
    size_t seed, next;
} dither_place;

TARGET static inline dither_place dither_start(const tiles_plane *plane, size_t seed)
{
    const dither_place place = {seed, (size_t)(int)(plane->random[seed] * 500)};
    return place;
}

TARGET static void undither_row(const tiles_plane *plane, double scale, double zero, const int32_t *integers, size_t n,
                                dither_place *place, float *out)
{
    for (size_t i = 0; i < n; i++) {
        const float value = (float)(((double)integers[i] - plane->random[place->next] + 0.5) * scale + zero);
        out[i] = plane->has_blank && integers[i] == plane->blank                          ? NAN
                 : plane->dither == TILES_DITHER_2 && integers[i] == ZERO_PIXEL ? 0
                                                                                          : value;
        if (++place->next == TILES_RANDOM)
            *place = dither_start(plane, (place->seed + 1) % TILES_RANDOM);
    }
}

TARGET static ptrdiff_t decode_tiles(const tiles_plane *plane, size_t first, size_t last, int32_t *integers, float *out)
{
    const size_t across = (plane->width + plane->tile_cols - 1) / plane->tile_cols;
    for (size_t tile = first * across; tile < last * across; tile++) {
        const size_t top = tile / across * plane->tile_rows, left = tile % across * plane->tile_cols;
        const size_t rows = plane->height - top < plane->tile_rows ? plane->height - top : plane->tile_rows;
        const size_t cols = plane->width - left < plane->tile_cols ? plane->width - left : plane->tile_cols;
        const size_t start = (size_t)plane->starts[tile], length = (size_t)plane->lengths[tile];
        if (length == 0)
            continue;
        if (!decode_stream(plane->heap + start, length, plane->heap_size - start, plane->bytepix, plane->blocksize,
                           rows * cols, integers))
            return (ptrdiff_t)tile;
        dither_place place = {0, 0};
        if (plane->dither != TILES_NO_DITHER)
            place = dither_start(plane, (plane->seed + tile) % TILES_RANDOM);
        for (size_t row = 0; row < rows; row++) {
            const int32_t *in = integers + row * cols;
            float *to = out + (top - first * plane->tile_rows + row) * plane->width + left;
            if (plane->dither == TILES_NO_DITHER)
                scale_row(plane, plane->scales[tile], plane->zeros[tile], in, cols, to);
            else
                undither_row(plane, plane->scales[tile], plane->zeros[tile], in, cols, &place, to);
        }
    }
    return -1;
}

TARGET static void count_pixels(const float *pixels, size_t n, size_t *finite, size_t *infinite)
{
    const uint32_t exponent = 0x7f800000;
    size_t nans = 0, infinities = 0;
    for (size_t i = 0; i < n;) {
        uint32_t some_nans = 0, some_infinities = 0; /* as wide as the pixels, so that they share vectors */
        const size_t stop = n - i < 1 << 20 ? n : i + (1 << 20);
        for (; i < stop; i++) {
            uint32_t bits;
            memcpy(&bits, pixels + i, sizeof bits);
            some_nans += (bits & 0x7fffffff) > exponent;
            some_infinities += (bits & 0x7fffffff) == exponent;
        }
        nans += some_nans;
        infinities += some_infinities;
    }
    *finite = n - nans - infinities;
    *infinite = infinities;
}
