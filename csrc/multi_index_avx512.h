/* near8 for both AVX-512 levels. The file that includes this has defined TARGET and popcount_words(vector). */

TARGET static inline unsigned popcount64(uint64_t x)
{
    return (unsigned)__builtin_popcountll(x);
}

#include "mask_bits.h"
#include "multi_index_words.h"

/* A vector of fewer than 8 words would wait for a line of memory that it does not need. */
TARGET static inline unsigned near8(const uint8_t *words, unsigned count, uint64_t wanted, unsigned limit)
{
    if (count < 8)
        return near_by_words(words, count, wanted, limit);
    const __m512i differ = _mm512_xor_si512(_mm512_loadu_si512(words), _mm512_set1_epi64((long long)wanted));
    return bits_of_8(_mm512_cmple_epu64_mask(popcount_words(differ), _mm512_set1_epi64(limit)));
}
