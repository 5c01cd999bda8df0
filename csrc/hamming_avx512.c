/* AVX-512 BW (2017 on), for hosts without VPOPCNTDQ: as AVX2, on 64 bytes at once. */
#include "hamming.h"

#ifdef HAMMING_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,popcnt")))

#include "hamming_avx512.h"

TARGET static inline vector popcount_words(vector x)
{
    return _mm512_sad_epu8(popcount_bytes(x), _mm512_setzero_si512());
}

#include "hamming_tile.h"
#include "hamming_scan.h"

const hamming_kernels hamming_avx512 = HAMMING_KERNELS("avx512");
#endif
