/* AVX-512 with VPOPCNTDQ (2019 on): one instruction counts the bits of 8 words. */
#include "multi_index.h"

#ifdef HAMMING_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vpopcntdq,popcnt")))

TARGET static inline __m512i popcount_words(__m512i x)
{
    return _mm512_popcnt_epi64(x);
}

#include "multi_index_avx512.h"
#include "multi_index_search.h"

const multi_index_kernels multi_index_avx512vpopcntdq = {"avx512vpopcntdq", search_knn, search_range};
#endif
