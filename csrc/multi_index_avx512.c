/* AVX-512 BW (2017 on), for hosts without VPOPCNTDQ: the two halves of each byte are looked up in a register. */
#include "multi_index.h"

#ifdef HAMMING_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,popcnt")))

TARGET static inline __m512i popcount_words(__m512i x)
{
    const __m512i counts = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i nibble = _mm512_set1_epi8(0x0F);
    const __m512i bytes =
        _mm512_add_epi8(_mm512_shuffle_epi8(counts, _mm512_and_si512(x, nibble)),
                        _mm512_shuffle_epi8(counts, _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble)));
    return _mm512_sad_epu8(bytes, _mm512_setzero_si512());
}

#include "multi_index_avx512.h"
#include "multi_index_search.h"

const multi_index_kernels multi_index_avx512 = {"avx512", search_knn, search_range};
#endif
