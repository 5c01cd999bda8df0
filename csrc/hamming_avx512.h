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

/* Compilers like to mix loads; a processor reads ahead only where addresses rise: the empty asm keeps their order. */
TARGET static inline vector differing(const uint8_t *codes, vector wanted)
{
    vector x = load_vector(codes);
    __asm__ volatile("" : "+v"(x));
    return _mm512_xor_si512(x, wanted);
}

/* 32 words in 16-bit lanes: each quarter of the result has two of each of the four, in turn. */
TARGET static inline vector pack_words(const vector eight[4])
{
    return _mm512_packus_epi32(_mm512_packus_epi32(eight[0], eight[1]), _mm512_packus_epi32(eight[2], eight[3]));
}

/* The distances of 32 neighbouring words. */
TARGET static inline vector words_32(const uint8_t *codes, vector wanted)
{
    vector eight[4];
    for (int j = 0; j < 4; j++)
        eight[j] = popcount_words(differing(codes + 64 * j, wanted));
    return pack_words(eight);
}

/* The distances of 16 neighbouring codes of 16 bytes, in 32-bit lanes. */
TARGET static inline vector halves_16(const uint8_t *codes, vector wanted)
{
    return _mm512_madd_epi16(words_32(codes, wanted), _mm512_set1_epi16(1));
}

/* The distances of 16 neighbouring codes of 32 bytes, in 32-bit lanes: their halves lie in neighbouring quarters. */
TARGET static inline vector codes_16(const uint8_t *codes, vector wanted)
{
    const vector a = halves_16(codes, wanted), b = halves_16(codes + 256, wanted);
    return _mm512_add_epi32(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xDD));
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

/* Where the distances of 32 codes stand after packing. */
static const uint16_t ORDER_8[LANES] = {0, 1, 8,  9,  16, 17, 24, 25, 2, 3, 10, 11, 18, 19, 26, 27,
                                        4, 5, 12, 13, 20, 21, 28, 29, 6, 7, 14, 15, 22, 23, 30, 31};
static const uint16_t ORDER_16[LANES] = {0, 8,  16, 24, 1, 9,  17, 25, 2, 10, 18, 26, 3, 11, 19, 27,
                                         4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31};
static const uint16_t ORDER_32[LANES] = {0, 8,  1, 9,  2, 10, 3, 11, 16, 24, 17, 25, 18, 26, 19, 27,
                                         4, 12, 5, 13, 6, 14, 7, 15, 20, 28, 21, 29, 22, 30, 23, 31};

TARGET static inline vector put_in_order(const uint16_t order[LANES], vector packed)
{
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), packed);
}

TARGET static inline vector next_1(const uint8_t *codes, vector wanted)
{
    const __m256i bytes = _mm256_loadu_si256((const __m256i *)codes);
    return popcount_bytes(_mm512_cvtepu8_epi16(_mm256_xor_si256(bytes, _mm512_castsi512_si256(wanted))));
}

TARGET static inline vector next_4(const uint8_t *codes, vector wanted)
{
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    const vector a = popcount_32(differing(codes, wanted)), b = popcount_32(differing(codes + 64, wanted));
    return _mm512_permutexvar_epi64(order, _mm512_packus_epi32(a, b));
}

TARGET static inline vector next_16(const uint8_t *codes, vector wanted)
{
    const vector a = halves_16(codes, wanted), b = halves_16(codes + 256, wanted);
    return put_in_order(ORDER_16, _mm512_packus_epi32(a, b));
}

TARGET static inline vector next_32(const uint8_t *codes, vector wanted)
{
    const vector a = codes_16(codes, wanted), b = codes_16(codes + 512, wanted);
    return put_in_order(ORDER_32, _mm512_packus_epi32(a, b));
}

TARGET static inline vector next_distances(const uint8_t *codes, vector wanted, size_t n_bytes)
{
    switch (n_bytes) {
    case 1: return next_1(codes, wanted);
    case 2: return popcount_16(differing(codes, wanted));
    case 4: return next_4(codes, wanted);
    case 8: return put_in_order(ORDER_8, words_32(codes, wanted));
    case 16: return next_16(codes, wanted);
    default: return next_32(codes, wanted);
    }
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

TARGET static inline vector add_bytes(vector a, vector b)
{
    return _mm512_add_epi8(a, b);
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
