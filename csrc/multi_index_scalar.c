/* Plain C, which runs anywhere and is what every other instruction set must agree with. */
#include "multi_index.h"

#define TARGET

static inline unsigned popcount64(uint64_t x)
{
#if defined(__aarch64__)
    return (unsigned)__builtin_popcountll(x); /* NEON's, which is always there */
#else
    x -= (x >> 1) & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + ((x >> 2) & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
    return (unsigned)(x * 0x0101010101010101u >> 56);
#endif
}

#include "multi_index_words.h"
#define near8 near_by_words
#include "multi_index_search.h"

const multi_index_kernels multi_index_scalar = {"scalar", search_knn, search_range};
