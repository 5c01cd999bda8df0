/* What the two AVX-512 levels share: all but how the bits of 8 words are counted. The file that includes this has
 * defined TARGET, and goes on to define popcount_words(x), the number of one bits in each 8 bytes, and its tile.
 */

TARGET static inline uint64_t popcount64(uint64_t x)
{
    return (uint64_t)__builtin_popcountll(x);
}

#include "hamming_words.h"
#include "mask_bits.h"

typedef __m512i vector;

#define LANES 32
#define LEAST_WIDE 32 /* shorter codes do not pay for the sum across a vector */

TARGET static inline vector load_vector(const uint8_t *bytes)
{
    return _mm512_loadu_si512(bytes);
}

TARGET static inline void store_vector(uint16_t *out, vector numbers)
{
    _mm512_storeu_si512(out, numbers);
}

/* The number of one bits in each byte: that of its halves, looked up. */
TARGET static inline vector popcount_bytes(vector x)
{
    const __m512i counts = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i nibble = _mm512_set1_epi8(0x0F);
    return _mm512_add_epi8(_mm512_shuffle_epi8(counts, _mm512_and_si512(x, nibble)),
                           _mm512_shuffle_epi8(counts, _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble)));
}

/* In each 2, 4, 8 bytes. */
TARGET static inline vector popcount_16(vector x)
{
    return _mm512_maddubs_epi16(popcount_bytes(x), _mm512_set1_epi8(1));
}

TARGET static inline vector popcount_32(vector x)
{
    return _mm512_madd_epi16(popcount_16(x), _mm512_set1_epi16(1));
}

TARGET static inline vector popcount_words(vector x);

TARGET static inline vector differing(const uint8_t *codes, vector wanted)
{
    return _mm512_xor_si512(load_vector(codes), wanted);
}

/* a0+a1, a2+a3, ... b6+b7: so words become codes of 16 bytes, those become codes of 32, and so on, in order. */
TARGET static inline __m512i add_pairs(__m512i a, __m512i b)
{
    const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    const __m512i odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    return _mm512_add_epi64(_mm512_permutex2var_epi64(a, even, b), _mm512_permutex2var_epi64(a, odd, b));
}

/* The distances of 8 neighbouring codes of 8, 16, 32 bytes, in words. */
TARGET static inline vector eight_of_8(const uint8_t *codes, vector wanted)
{
    return popcount_words(differing(codes, wanted));
}

TARGET static inline vector eight_of_16(const uint8_t *codes, vector wanted)
{
    return add_pairs(eight_of_8(codes, wanted), eight_of_8(codes + 64, wanted));
}

TARGET static inline vector eight_of_32(const uint8_t *codes, vector wanted)
{
    return add_pairs(eight_of_16(codes, wanted), eight_of_16(codes + 128, wanted));
}

/* Codes of more than 32 bytes: whole vectors, and a last one whose load touches no byte outside its mask. */
TARGET static inline void distances_wide(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                         uint16_t *out)
{
    const size_t last = (n_bytes - 1) / 64 * 64;
    const __mmask64 inside = ~(__mmask64)0 >> (64 - (n_bytes - last));
    const __m512i wanted = _mm512_maskz_loadu_epi8(inside, query + last);
    for (size_t i = 0; i < count; i++, codes += n_bytes) {
        __m512i sum = popcount_words(_mm512_xor_si512(_mm512_maskz_loadu_epi8(inside, codes + last), wanted));
        for (size_t at = 0; at < last; at += 64)
            sum = _mm512_add_epi64(sum, popcount_words(_mm512_xor_si512(_mm512_loadu_si512(codes + at),
                                                                        _mm512_loadu_si512(query + at))));
        out[i] = (uint16_t)_mm512_reduce_add_epi64(sum);
    }
}

/* 32 distances in words, packed into 16-bit lanes in order. */
TARGET static inline vector pack_words(const vector eight[4])
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi32(_mm512_packus_epi32(eight[0], eight[1]),
                                                               _mm512_packus_epi32(eight[2], eight[3])));
}

TARGET static inline vector next_1(const uint8_t *codes, vector wanted)
{
    const __m256i bytes = _mm256_loadu_si256((const __m256i *)codes);
    return popcount_bytes(_mm512_cvtepu8_epi16(_mm256_xor_si256(bytes, _mm512_castsi512_si256(wanted))));
}

TARGET static inline vector next_4(const uint8_t *codes, vector wanted)
{
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    return _mm512_permutexvar_epi64(order, _mm512_packus_epi32(popcount_32(differing(codes, wanted)),
                                                               popcount_32(differing(codes + 64, wanted))));
}

TARGET static inline vector next_distances(const uint8_t *codes, vector wanted, size_t n_bytes)
{
    vector eight[4];
    switch (n_bytes) {
    case 1: return next_1(codes, wanted);
    case 2: return popcount_16(differing(codes, wanted));
    case 4: return next_4(codes, wanted);
    }
    for (int j = 0; j < 4; j++) {
        const uint8_t *at = codes + 8 * j * n_bytes;
        eight[j] = n_bytes == 8    ? eight_of_8(at, wanted)
                   : n_bytes == 16 ? eight_of_16(at, wanted)
                                   : eight_of_32(at, wanted);
    }
    return pack_words(eight);
}

TARGET static inline uint64_t less_64(const vector distances[2], unsigned limit)
{
    const __m512i below = _mm512_set1_epi16((short)limit);
    return bits_of_32(_mm512_cmplt_epu16_mask(distances[0], below))
           | bits_of_32(_mm512_cmplt_epu16_mask(distances[1], below)) << 32;
}

#include "hamming_rows.h"

TARGET static inline vector zero_vector(void)
{
    return _mm512_setzero_si512();
}

TARGET static inline vector load_table(const uint8_t *bytes)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)bytes));
}

TARGET static inline vector look_up(vector table, vector nibbles)
{
    return _mm512_shuffle_epi8(table, nibbles);
}

TARGET static inline vector add_up_to_255(vector a, vector b)
{
    return _mm512_adds_epu8(a, b);
}

TARGET static inline uint64_t less_bytes(vector sums, unsigned limit)
{
    return _mm512_cmplt_epu8_mask(sums, _mm512_set1_epi8((char)limit));
}

#include "hamming_nibbles.h"
