/* AVX-512 with VPOPCNTDQ (2019 on): one instruction counts the bits of 8 words. */
#include "hamming.h"

#ifdef HAMMING_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vpopcntdq,popcnt")))

#include "hamming_avx512.h"

TARGET static inline vector popcount_words(vector x)
{
    return _mm512_popcnt_epi64(x);
}

/* Many queries against a block of codes of 8 bytes or more. The block is laid out in columns, a word of 32 codes each,
 * so that nothing is added across a vector, and the codes stand there in the order that packing undoes. The last word
 * ends where the code ends, and loses the bits that it shares with the one before it. Shorter codes go by nibbles. */
#define TILED
#define COLUMN 32
#define MOST_WORDS (HAMMING_MAX_BYTES / 8)

/* The place of code i in its column, and the code at place i: see pack_words(). */
static inline size_t place(size_t i)
{
    return i % 8 / 2 * 8 + i / 8 * 2 + i % 2;
}

TARGET static inline uint64_t word_of(const uint8_t *code, size_t w, size_t n_bytes)
{
    const size_t last = (n_bytes - 1) / 8;
    return w < last ? load64(code + 8 * w) : load64(code + n_bytes - 8) & UINT64_MAX << 8 * (8 * (last + 1) - n_bytes);
}

/* Up to 32 codes; where there are fewer, the first one stands in the places of the others. */
TARGET static inline void fill_column(const uint8_t *codes, size_t count, size_t n_bytes, uint64_t *columns)
{
    for (size_t w = 0; 8 * w < n_bytes; w++)
        for (size_t i = 0; i < COLUMN; i++)
            columns[COLUMN * w + i] = word_of(codes + (place(i) < count ? place(i) : 0) * n_bytes, w, n_bytes);
}

/* The first quarters of four vectors, the second ones, and so on. */
TARGET static inline void transpose_quarters(const vector rows[4], vector columns[4])
{
    const vector a = _mm512_shuffle_i64x2(rows[0], rows[1], 0x44), b = _mm512_shuffle_i64x2(rows[2], rows[3], 0x44);
    const vector c = _mm512_shuffle_i64x2(rows[0], rows[1], 0xEE), d = _mm512_shuffle_i64x2(rows[2], rows[3], 0xEE);
    columns[0] = _mm512_shuffle_i64x2(a, b, 0x88);
    columns[1] = _mm512_shuffle_i64x2(a, b, 0xDD);
    columns[2] = _mm512_shuffle_i64x2(c, d, 0x88);
    columns[3] = _mm512_shuffle_i64x2(c, d, 0xDD);
}

/* As fill_column(), 32 codes of 1, 2 or 4 words: a quarter of a vector becomes the same word of two neighbours. */
TARGET static inline void fill_column_at_once(const uint8_t *codes, size_t n_words, uint64_t *columns)
{
    const size_t neighbours = 4 / n_words; /* pairs of them in a vector */
    const __m512i pairs = n_words == 1   ? _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7)
                          : n_words == 2 ? _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7)
                                         : _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    for (size_t at = 0; at < n_words; at++) {
        vector rows[4], quarters[4];
        for (size_t j = 0; j < 4; j++)
            rows[j] = _mm512_permutexvar_epi64(pairs, load_vector(codes + 64 * (n_words * j + at)));
        transpose_quarters(rows, quarters);
        for (size_t j = 0; j < 4; j++)
            _mm512_storeu_si512(columns + COLUMN * (j / neighbours) + 8 * (neighbours * at + j % neighbours),
                                quarters[j]);
    }
}

TARGET static inline void tile_fill(const uint8_t *codes, size_t count, size_t n_bytes, uint8_t *tile)
{
    const size_t n_words = (n_bytes + 7) / 8;
    if (n_bytes < 8) {
        nibbles_fill(codes, count, n_bytes, tile);
        return;
    }
    for (size_t i = 0; i < count; i += COLUMN) {
        uint64_t *columns = (uint64_t *)tile + i * n_words;
        const uint8_t *from = codes + i * n_bytes;
        if (count - i < COLUMN)
            fill_column(from, count - i, n_bytes, columns);
        else if (n_bytes == 8)
            fill_column_at_once(from, 1, columns);
        else if (n_bytes == 16)
            fill_column_at_once(from, 2, columns);
        else if (n_bytes == 32)
            fill_column_at_once(from, 4, columns);
        else
            fill_column(from, COLUMN, n_bytes, columns);
    }
}

/* Which of 32 codes are nearer than limit. */
TARGET static inline uint64_t column_nearer(const vector *wanted, const uint8_t *columns, size_t n_words, vector limit)
{
    vector sums[4] = {0};
    for (size_t w = 0; w < n_words; w++)
        for (size_t j = 0; j < 4; j++) {
            const vector words = load_vector(columns + 8 * COLUMN * w + 64 * j);
            sums[j] = _mm512_add_epi64(sums[j], popcount_words(_mm512_xor_si512(words, wanted[w])));
        }
    return bits_of_32(_mm512_cmplt_epu16_mask(pack_words(sums), limit));
}

TARGET static inline uint64_t columns_nearer(const uint8_t *query, const uint8_t *tile, size_t count, size_t n_bytes,
                                             size_t n_words, unsigned limit, uint64_t *near)
{
    const size_t column = 8 * COLUMN * n_words;
    const vector least = _mm512_set1_epi16((short)limit);
    vector wanted[MOST_WORDS];
    uint64_t any = 0;
    for (size_t w = 0; w < n_words; w++)
        wanted[w] = _mm512_set1_epi64((long long)word_of(query, w, n_bytes));
    for (size_t i = 0; i < count; i += 2 * COLUMN, tile += 2 * column) {
        const uint64_t low = column_nearer(wanted, tile, n_words, least);
        const uint64_t high = column_nearer(wanted, tile + column, n_words, least);
        any |= near[i / 64] = (low | high << COLUMN) & first_bits(count - i);
    }
    return any;
}

TARGET static inline int tile_serves(size_t n_bytes, unsigned limit)
{
    (void)n_bytes, (void)limit;
    return 1;
}

TARGET static inline uint64_t tile_nearer(const uint8_t *query, const uint8_t *tile, size_t count, size_t n_bytes,
                                          unsigned limit, uint64_t *near)
{
    const size_t n_words = (n_bytes + 7) / 8;
    if (n_bytes < 8)
        return nibbles_nearer(query, tile, count, n_bytes, limit, near);
    switch (n_words) {
    case 1: return columns_nearer(query, tile, count, n_bytes, 1, limit, near);
    case 2: return columns_nearer(query, tile, count, n_bytes, 2, limit, near);
    case 3: return columns_nearer(query, tile, count, n_bytes, 3, limit, near);
    case 4: return columns_nearer(query, tile, count, n_bytes, 4, limit, near);
    default: return columns_nearer(query, tile, count, n_bytes, n_words, limit, near);
    }
}

/* A tile, its queries and their heaps share the first-level cache with what is read ahead. */
#define BLOCK_BYTES (1 << 12)
#define LONG_BYTES 7 /* columns are of 32 codes, nibbles of 256 */
#include "hamming_scan.h"

const hamming_kernels hamming_avx512vpopcntdq = HAMMING_KERNELS("avx512vpopcntdq");
#endif
