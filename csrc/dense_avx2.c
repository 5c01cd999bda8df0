/* AVX2 and FMA (2013 on): eight numbers at once, in 16 registers. */
#include "dense.h"

#ifdef DENSE_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define ROWS 6
#define COLUMNS 2
#define WIDE 13

typedef float numbers __attribute__((vector_size(32)));

TARGET static inline numbers fused(numbers a, numbers b, numbers c)
{
    return (numbers)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

#include "dense_run.h"

const dense_kernels dense_avx2 = {"avx2", run};
#endif
