/* AVX-512 (2017 on): sixteen numbers at once, in 32 registers. */
#include "dense.h"

#ifdef DENSE_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f")))
#define LANES 16
#define ROWS 8
#define COLUMNS 3
#define WIDE 16

typedef float numbers __attribute__((vector_size(64)));

TARGET static inline numbers fused(numbers a, numbers b, numbers c)
{
    return (numbers)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

#include "dense_run.h"

const dense_kernels dense_avx512 = {"avx512", run};
#endif
