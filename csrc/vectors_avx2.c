/* AVX2 (2013 on): four float64 at once. */
#include "vectors.h"

#ifdef VECTORS_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2")))

typedef __m256d lanes;

TARGET static inline lanes widen(const float *numbers)
{
    return _mm256_cvtps_pd(_mm_loadu_ps(numbers));
}

#include "vectors_scan.h"

const vectors_kernels vectors_avx2 = {"avx2", scan_knn};
#endif
