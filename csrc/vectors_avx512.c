/* AVX-512 (2017 on): eight float64 or sixteen float32 at once. */
#include "vectors.h"

#ifdef VECTORS_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f")))

typedef __m512d lanes;
typedef __m512 narrow;

TARGET static inline lanes widen(const float *numbers)
{
    return _mm512_cvtps_pd(_mm256_loadu_ps(numbers));
}

TARGET static inline narrow narrow_load(const float *numbers)
{
    return _mm512_loadu_ps(numbers);
}

#include "vectors_scan.h"
#include "vectors_graph.h"

const vectors_kernels vectors_avx512 = {"avx512", scan_knn, graph_search};
#endif
