/* AArch64, where NEON is always there: four numbers at once, in 32 registers. */
#include "dense.h"

#ifdef DENSE_ARM
#include <arm_neon.h>

#define TARGET
#define LANES 4
#define ROWS 8
#define COLUMNS 3
#define WIDE 16

typedef float numbers __attribute__((vector_size(16)));

static inline numbers fused(numbers a, numbers b, numbers c)
{
    return (numbers)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

#include "dense_run.h"

const dense_kernels dense_neon = {"neon", run};
#endif
