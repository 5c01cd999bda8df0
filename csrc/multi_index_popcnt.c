/* POPCNT (2008 on): one instruction counts the bits of a word. AVX2 has nothing better for so few words at a time. */
#include "multi_index.h"

#ifdef HAMMING_X86
#define TARGET __attribute__((target("popcnt")))

TARGET static inline unsigned popcount64(uint64_t x)
{
    return (unsigned)__builtin_popcountll(x);
}

#include "multi_index_words.h"
#define near8 near_by_words
#include "multi_index_search.h"

const multi_index_kernels multi_index_popcnt = {"popcnt", search_knn, search_range};
#endif
