/* Plain C, which runs anywhere and is what every other instruction set must agree with; and which of them there are. */
#include "vectors.h"

#define TARGET

typedef double lanes;
typedef float narrow;

static inline lanes widen(const float *numbers)
{
    return *numbers;
}

static inline narrow narrow_load(const float *numbers)
{
    return *numbers;
}

#include "vectors_scan.h"
#include "vectors_graph.h"

const vectors_kernels vectors_scalar = {"scalar", scan_knn, graph_search};

size_t vectors_available(const vectors_kernels *levels[VECTORS_MAX_LEVELS])
{
    size_t count = 0;
    levels[count++] = &vectors_scalar;
#if defined(VECTORS_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        levels[count++] = &vectors_avx2;
    if (count == 2 && __builtin_cpu_supports("avx512f"))
        levels[count++] = &vectors_avx512;
#endif
    return count;
}
