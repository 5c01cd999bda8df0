/* AVX2 (2013 on): four float64 or eight float32 at once. */
#include "vectors.h"

#ifdef VECTORS_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2")))

typedef __m256d lanes;
typedef __m256 narrow;

TARGET static inline lanes widen(const float *numbers)
{
    return _mm256_cvtps_pd(_mm_loadu_ps(numbers));
}

TARGET static inline narrow narrow_load(const float *numbers)
{
    return _mm256_loadu_ps(numbers);
}

#include "vectors_scan.h"
#include "vectors_graph.h"

const vectors_kernels vectors_avx2 = {"avx2", scan_knn, graph_search};
#endif
