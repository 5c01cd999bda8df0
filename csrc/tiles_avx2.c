/* AVX2 and BMI (2013 on): zeros are counted and words shifted in one cycle each; pixels are scaled in vectors. */
#include "tiles.h"

#ifdef TILES_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,bmi,bmi2,lzcnt")))
#define leading_zeros(word) ((unsigned)_lzcnt_u64(word))
#include "tiles_decode.h"

const tiles_kernels tiles_avx2 = {"avx2", decode_tiles, count_pixels};
#endif
