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

TARGET static inline __m256i load256(const uint8_t *bytes)
{
    return _mm256_loadu_si256((const __m256i *)bytes);
}

/* The number of one bits in each byte. */
TARGET static inline __m256i popcount_bytes(__m256i x)
{
    const __m256i counts = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m256i nibble = _mm256_set1_epi8(0x0F);
    return _mm256_add_epi8(_mm256_shuffle_epi8(counts, _mm256_and_si256(x, nibble)),
                           _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble)));
}

/* The number of one bits in each 8 bytes. */
TARGET static inline __m256i popcount_words(__m256i x)
{
    return _mm256_sad_epu8(popcount_bytes(x), _mm256_setzero_si256());
}

/* 8-byte codes, 16 at a time: four sums of four are packed into 16-bit lanes, then put in order. */
TARGET static inline void distances_8(const uint8_t *query, const uint8_t *codes, size_t count, uint16_t *out)
{
    const __m256i wanted = _mm256_set1_epi64x((long long)load64(query));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __m256i sum[4];
        for (int j = 0; j < 4; j++)
            sum[j] = popcount_words(_mm256_xor_si256(load256(codes + 8 * i + 32 * j), wanted));
        const __m256i packed = _mm256_packus_epi32(_mm256_packus_epi32(sum[0], sum[1]),
                                                   _mm256_packus_epi32(sum[2], sum[3]));
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_permutevar8x32_epi32(packed, order));
    }
    distances_by_words(query, codes + 8 * i, count - i, 8, out + i);
}

/* Codes of 64 bytes or more: whole vectors, and a last one that ends where the code ends, masked like the words. */
TARGET static inline void distances_wide(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                         uint16_t *out)
{
    const size_t whole = (n_bytes - 1) / 32, last = n_bytes - 32;
    uint8_t bytes[32] = {0};
    memset(bytes + 32 - (n_bytes - 32 * whole), 0xFF, n_bytes - 32 * whole);
    const __m256i mask = load256(bytes);
    for (size_t i = 0; i < count; i++, codes += n_bytes) {
        const __m256i differ = _mm256_xor_si256(load256(codes + last), load256(query + last));
        __m256i sum = popcount_words(_mm256_and_si256(differ, mask));
        for (size_t at = 0; at < 32 * whole; at += 32)
            sum = _mm256_add_epi64(sum, popcount_words(_mm256_xor_si256(load256(codes + at), load256(query + at))));
        __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        half = _mm_add_epi64(half, _mm_unpackhi_epi64(half, half));
        out[i] = (uint16_t)_mm_cvtsi128_si32(half);
    }
}

TARGET static inline void distances(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                    uint16_t *out)
{
    if (n_bytes == 8)
        distances_8(query, codes, count, out);
    else if (n_bytes < 64) /* too short to pay for the sum across a vector */
        distances_by_words(query, codes, count, n_bytes, out);
    else
        distances_wide(query, codes, count, n_bytes, out);
}

#include "hamming_scan.h"

const hamming_kernels hamming_avx2 = {"avx2", scan_knn, scan_range};
#endif
