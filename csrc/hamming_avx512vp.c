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

/* Many queries against one block of codes of 8 bytes or more. The block is laid out in columns: word w of 64 codes is
 * 8 vectors, so that nothing is added across a vector. The last word ends where the code ends, and loses the bits that
 * it shares with the one before it. Shorter codes go by nibbles; those of 8 bytes are in columns where they lie. */
#define TILED
#define MOST_WORDS (HAMMING_MAX_BYTES / 8)

/* The words of some codes, those of each place 64 apart. */
TARGET static inline void put_words(const uint8_t *codes, size_t count, size_t n_bytes, uint64_t *columns)
{
    const size_t whole = (n_bytes - 1) / 8;
    const uint64_t mask = last_bytes_mask(n_bytes - 8 * whole);
    for (size_t w = 0; w < whole; w++)
        for (size_t i = 0; i < count; i++)
            columns[64 * w + i] = load64(codes + i * n_bytes + 8 * w);
    for (size_t i = 0; i < count; i++)
        columns[64 * whole + i] = load64(codes + i * n_bytes + n_bytes - 8) & mask;
}

TARGET static inline void tile_fill(const uint8_t *codes, size_t count, size_t n_bytes, uint8_t *tile)
{
    const size_t n_words = (n_bytes + 7) / 8;
    if (n_bytes < 8)
        nibbles_fill(codes, count, n_bytes, tile);
    else
        for (size_t i = 0; i < count; i += 64)
            put_words(codes + i * n_bytes, count - i < 64 ? count - i : 64, n_bytes, (uint64_t *)tile + i * n_words);
}

/* Which of 64 codes are nearer than limit. */
TARGET static inline uint64_t words_nearer(const uint64_t *query, const uint64_t *columns, size_t n_words,
                                           unsigned limit)
{
    vector sums[8] = {0};
    for (size_t w = 0; w < n_words; w++) {
        const vector wanted = _mm512_set1_epi64((long long)query[64 * w]);
        for (size_t j = 0; j < 8; j++)
            sums[j] = _mm512_add_epi64(sums[j], eight_of_8((const uint8_t *)(columns + 64 * w + 8 * j), wanted));
    }
    const vector distances[2] = {pack_words(sums), pack_words(sums + 4)};
    return less_64(distances, limit);
}

TARGET static inline int tile_serves(size_t n_bytes, unsigned limit)
{
    (void)limit;
    return n_bytes != 8;
}

TARGET static inline uint64_t tile_nearer(const uint8_t *query, const uint8_t *tile, size_t count, size_t n_bytes,
                                          unsigned limit, uint64_t *near)
{
    uint64_t wanted[64 * MOST_WORDS], any = 0;
    const size_t n_words = (n_bytes + 7) / 8;
    if (n_bytes < 8)
        return nibbles_nearer(query, tile, count, n_bytes, limit, near);
    put_words(query, 1, n_bytes, wanted);
    for (size_t i = 0; i < count; i += 64) {
        const uint64_t *columns = (const uint64_t *)tile + i * n_words;
        any |= near[i / 64] = words_nearer(wanted, columns, n_words, limit) & first_bits(count - i);
    }
    return any;
}

#include "hamming_scan.h"

const hamming_kernels hamming_avx512vpopcntdq = HAMMING_KERNELS("avx512vpopcntdq");
#endif
