/* AVX-512 with VPOPCNTDQ (2019 on): one instruction counts the bits of 8 words. */
#include "hamming.h"

#ifdef HAMMING_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vpopcntdq,popcnt")))

TARGET static inline __m512i popcount_words(__m512i x)
{
    return _mm512_popcnt_epi64(x);
}

#include "hamming_avx512.h"
#include "hamming_scan.h"

const hamming_kernels hamming_avx512vpopcntdq = {"avx512vpopcntdq", scan_knn, scan_range};
#endif
