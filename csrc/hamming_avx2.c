/* AVX2 (2013 on): the bits of 32 bytes at once, by looking up the two halves of each byte in a register. */
#include "hamming.h"

#ifdef HAMMING_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,popcnt")))

TARGET static inline uint64_t popcount64(uint64_t x)
{
    return (uint64_t)__builtin_popcountll(x);
}

#include "hamming_words.h"

typedef __m256i vector;

#define LANES 16
#define LEAST_WIDE 64 /* shorter codes do not pay for the sum across a vector */

TARGET static inline vector load_vector(const uint8_t *bytes)
{
    return _mm256_loadu_si256((const __m256i *)bytes);
}

TARGET static inline void store_vector(uint16_t *out, vector numbers)
{
    _mm256_storeu_si256((__m256i *)out, numbers);
}

/* The number of one bits in each byte. */
TARGET static inline vector popcount_bytes(vector x)
{
    const __m256i counts = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m256i nibble = _mm256_set1_epi8(0x0F);
    return _mm256_add_epi8(_mm256_shuffle_epi8(counts, _mm256_and_si256(x, nibble)),
                           _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble)));
}

/* In each 2, 4, 8 bytes. */
TARGET static inline vector popcount_16(vector x)
{
    return _mm256_maddubs_epi16(popcount_bytes(x), _mm256_set1_epi8(1));
}

TARGET static inline vector popcount_32(vector x)
{
    return _mm256_madd_epi16(popcount_16(x), _mm256_set1_epi16(1));
}

TARGET static inline vector popcount_words(vector x)
{
    return _mm256_sad_epu8(popcount_bytes(x), _mm256_setzero_si256());
}

/* Compilers like to mix loads; a processor reads ahead only where addresses rise: the empty asm keeps their order. */
TARGET static inline vector differing(const uint8_t *codes, vector wanted)
{
    vector x = load_vector(codes);
    __asm__ volatile("" : "+x"(x));
    return _mm256_xor_si256(x, wanted);
}

TARGET static inline vector next_1(const uint8_t *codes, vector wanted)
{
    const __m128i differ = _mm_xor_si128(_mm_loadu_si128((const __m128i *)codes), _mm256_castsi256_si128(wanted));
    return popcount_bytes(_mm256_cvtepu8_epi16(differ));
}

TARGET static inline vector next_4(const uint8_t *codes, vector wanted)
{
    const vector a = popcount_32(differing(codes, wanted)), b = popcount_32(differing(codes + 32, wanted));
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
}

/* Four sums of four are packed into 16-bit lanes, then put in order. */
TARGET static inline vector next_8(const uint8_t *codes, vector wanted)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i sum[4];
    for (int j = 0; j < 4; j++)
        sum[j] = popcount_words(differing(codes + 32 * j, wanted));
    const __m256i packed = _mm256_packus_epi32(_mm256_packus_epi32(sum[0], sum[1]),
                                               _mm256_packus_epi32(sum[2], sum[3]));
    return _mm256_permutevar8x32_epi32(packed, order);
}

/* Four vectors of word sums side by side: lane j of each 64 bits comes from vector j. */
TARGET static inline vector four_abreast(const uint8_t *codes, vector wanted)
{
    __m256i sum = popcount_words(differing(codes, wanted));
    sum = _mm256_or_si256(sum, _mm256_slli_epi64(popcount_words(differing(codes + 32, wanted)), 16));
    sum = _mm256_or_si256(sum, _mm256_slli_epi64(popcount_words(differing(codes + 64, wanted)), 32));
    return _mm256_or_si256(sum, _mm256_slli_epi64(popcount_words(differing(codes + 96, wanted)), 48));
}

/* The sums of the two words in each half of four vectors, then of the next four, half by half. */
TARGET static inline vector halves_16(const uint8_t *codes, vector wanted)
{
    const vector a = four_abreast(codes, wanted), b = four_abreast(codes + 128, wanted);
    return _mm256_add_epi16(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

/* A vector is two codes, one in each half: the even codes' sums come to lie in one half, the odd ones' in the other. */
TARGET static inline vector next_16(const uint8_t *codes, vector wanted)
{
    const __m256i sums = halves_16(codes, wanted);
    const __m128i even = _mm256_castsi256_si128(sums), odd = _mm256_extracti128_si256(sums, 1);
    return _mm256_setr_m128i(_mm_unpacklo_epi16(even, odd), _mm_unpackhi_epi16(even, odd));
}

/* A vector is a code: its four words are added up. */
TARGET static inline vector next_32(const uint8_t *codes, vector wanted)
{
    const vector a = halves_16(codes, wanted), b = halves_16(codes + 256, wanted);
    return _mm256_add_epi16(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

TARGET static inline vector next_distances(const uint8_t *codes, vector wanted, size_t n_bytes)
{
    switch (n_bytes) {
    case 1: return next_1(codes, wanted);
    case 2: return popcount_16(differing(codes, wanted));
    case 4: return next_4(codes, wanted);
    case 8: return next_8(codes, wanted);
    case 16: return next_16(codes, wanted);
    default: return next_32(codes, wanted);
    }
}

TARGET static inline uint64_t less_32(vector a, vector b, unsigned limit)
{
    const __m256i below = _mm256_set1_epi16((short)limit);
    const __m256i less = _mm256_packs_epi16(_mm256_cmpgt_epi16(below, a), _mm256_cmpgt_epi16(below, b));
    return (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(less, 0xD8));
}

TARGET static inline uint64_t less_64(const vector *distances, unsigned limit)
{
    return less_32(distances[0], distances[1], limit) | less_32(distances[2], distances[3], limit) << 32;
}

/* Codes of 64 bytes or more: whole vectors, and a last one that ends where the code ends, masked like the words. */
TARGET static inline void distances_wide(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                         uint16_t *out)
{
    const size_t whole = (n_bytes - 1) / 32, last = n_bytes - 32;
    uint8_t bytes[32] = {0};
    memset(bytes + 32 - (n_bytes - 32 * whole), 0xFF, n_bytes - 32 * whole);
    const __m256i mask = load_vector(bytes);
    for (size_t i = 0; i < count; i++, codes += n_bytes) {
        __m256i sum = popcount_words(_mm256_and_si256(differing(codes + last, load_vector(query + last)), mask));
        for (size_t at = 0; at < 32 * whole; at += 32)
            sum = _mm256_add_epi64(sum, popcount_words(differing(codes + at, load_vector(query + at))));
        __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        half = _mm_add_epi64(half, _mm_unpackhi_epi64(half, half));
        out[i] = (uint16_t)_mm_cvtsi128_si32(half);
    }
}

#include "hamming_rows.h"

TARGET static inline vector zero_vector(void)
{
    return _mm256_setzero_si256();
}

TARGET static inline vector load_table(const uint8_t *bytes)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)bytes));
}

TARGET static inline vector look_up(vector table, vector nibbles)
{
    return _mm256_shuffle_epi8(table, nibbles);
}

TARGET static inline vector add_bytes(vector a, vector b)
{
    return _mm256_add_epi8(a, b);
}

TARGET static inline vector add_up_to_255(vector a, vector b)
{
    return _mm256_adds_epu8(a, b);
}

/* There is no unsigned comparison: a sum is less than limit where the greater of the two is not the sum. */
TARGET static inline uint64_t less_bytes(vector sums, unsigned limit)
{
    const __m256i least = _mm256_set1_epi8((char)limit);
    const __m256i not_less = _mm256_cmpeq_epi8(_mm256_max_epu8(sums, least), sums);
    return (uint32_t)~_mm256_movemask_epi8(not_less);
}

#include "hamming_nibbles.h"
#include "hamming_tile.h"
#include "hamming_scan.h"

const hamming_kernels hamming_avx2 = HAMMING_KERNELS("avx2");
#endif
