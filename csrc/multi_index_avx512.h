/* near8 for both AVX-512 levels. The file that includes this has defined TARGET and popcount_words(vector). */

TARGET static inline unsigned popcount64(uint64_t x)
{
    return (unsigned)__builtin_popcountll(x);
}

TARGET static inline unsigned near8(const uint8_t *words, unsigned count, uint64_t wanted, unsigned limit)
{
    const __mmask8 some = (__mmask8)(0xFFu >> (8 - count)); /* a masked load touches nothing else */
    const __m512i differ = _mm512_xor_si512(_mm512_maskz_loadu_epi64(some, words), _mm512_set1_epi64((long long)wanted));
    return _mm512_mask_cmple_epu64_mask(some, popcount_words(differ), _mm512_set1_epi64(limit));
}
