/* Plain C, which runs anywhere and is what every other instruction set must agree with; and which of them there are. */
#include "dense.h"

#define TARGET
#define LANES 4
#define ROWS 1
#define COLUMNS 2
#define WIDE 2

typedef float numbers __attribute__((vector_size(16)));

/* There may be no instruction for it, and the C library's fmaf is slow without. The product is exact in float64. Their
 * sum there is rounded to odd - where it is not exact, its last bit is set - so that it tells on which side of it the
 * true sum is, and rounding it to float32 gives what rounding the true sum does (Boldo and Melquiond, "Emulation of a
 * FMA and correctly rounded sums", 2008). What was lost is the error of the sum (Knuth's two-sum). */
static inline numbers fused(numbers a, numbers b, numbers c)
{
    typedef double longer __attribute__((vector_size(32)));
    typedef int64_t bits __attribute__((vector_size(32)));
    const longer product = __builtin_convertvector(a, longer) * __builtin_convertvector(b, longer);
    const longer addend = __builtin_convertvector(c, longer);
    const longer sum = product + addend, part = sum - product, lost = (product - (sum - part)) + (addend - part);
    const bits outwards = ((lost * sum > 0) & 2) - 1; /* 1 away from zero, or -1 */
    const bits odd = (bits)sum + (outwards & (lost != 0) & (((bits)sum & 1) - 1));
    return __builtin_convertvector((longer)odd, numbers);
}

#include "dense_run.h"

const dense_kernels dense_scalar = {"scalar", run};

size_t dense_available(const dense_kernels *levels[DENSE_MAX_LEVELS])
{
    size_t count = 0;
    levels[count++] = &dense_scalar;
#if defined(DENSE_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        levels[count++] = &dense_avx2;
    if (count == 2 && __builtin_cpu_supports("avx512f"))
        levels[count++] = &dense_avx512;
#elif defined(DENSE_ARM)
    levels[count++] = &dense_neon;
#endif
    return count;
}
