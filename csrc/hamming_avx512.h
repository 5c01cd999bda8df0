/* What the two AVX-512 levels share: all but how the bits of 8 words are counted. The file that includes this has
 * defined TARGET and popcount_words(vector), the number of one bits in each 8 bytes.
 */

TARGET static inline uint64_t popcount64(uint64_t x)
{
    return (uint64_t)__builtin_popcountll(x);
}

#include "hamming_words.h"

/* a0+a1, a2+a3, ... b6+b7: so words become codes of 16 bytes, those become codes of 32, and so on, in order. */
TARGET static inline __m512i add_pairs(__m512i a, __m512i b)
{
    const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    const __m512i odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    return _mm512_add_epi64(_mm512_permutex2var_epi64(a, even, b), _mm512_permutex2var_epi64(a, odd, b));
}

/* The distances of 8 neighbouring codes of 8, 16, 32 bytes to the query repeated to 64 bytes. */
TARGET static inline __m512i eight_of_8(const uint8_t *codes, __m512i wanted)
{
    return popcount_words(_mm512_xor_si512(_mm512_loadu_si512(codes), wanted));
}

TARGET static inline __m512i eight_of_16(const uint8_t *codes, __m512i wanted)
{
    return add_pairs(eight_of_8(codes, wanted), eight_of_8(codes + 64, wanted));
}

TARGET static inline __m512i eight_of_32(const uint8_t *codes, __m512i wanted)
{
    return add_pairs(eight_of_16(codes, wanted), eight_of_16(codes + 128, wanted));
}

/* Codes of 8, 16 or 32 bytes, 32 codes at a time: four eights are packed into 16-bit lanes, then put in order.
 * It is inlined where n_bytes is a constant. */
TARGET static inline void distances_even(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                         uint16_t *out)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    uint8_t repeated[64];
    for (size_t at = 0; at < 64; at += n_bytes)
        memcpy(repeated + at, query, n_bytes);
    const __m512i wanted = _mm512_loadu_si512(repeated);
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        __m512i eight[4];
        for (int j = 0; j < 4; j++) {
            const uint8_t *at = codes + (i + 8 * j) * n_bytes;
            eight[j] = n_bytes == 8    ? eight_of_8(at, wanted)
                       : n_bytes == 16 ? eight_of_16(at, wanted)
                                       : eight_of_32(at, wanted);
        }
        const __m512i packed = _mm512_packus_epi32(_mm512_packus_epi32(eight[0], eight[1]),
                                                   _mm512_packus_epi32(eight[2], eight[3]));
        _mm512_storeu_si512(out + i, _mm512_permutexvar_epi32(order, packed));
    }
    distances_by_words(query, codes + i * n_bytes, count - i, n_bytes, out + i);
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

TARGET static inline void distances(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                    uint16_t *out)
{
    switch (n_bytes) {
    case 8: distances_even(query, codes, count, 8, out); break;
    case 16: distances_even(query, codes, count, 16, out); break;
    case 32: distances_even(query, codes, count, 32, out); break;
    default: (n_bytes < 32 ? distances_by_words : distances_wide)(query, codes, count, n_bytes, out);
    }
}
