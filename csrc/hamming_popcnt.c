/* x86-64 with SSE4.2 and POPCNT (2008 on): one instruction counts the bits of a word. */
#include "hamming.h"

#ifdef HAMMING_X86
#define TARGET __attribute__((target("sse4.2,popcnt")))

TARGET static inline uint64_t popcount64(uint64_t x)
{
    return (uint64_t)__builtin_popcountll(x);
}

#include "hamming_words.h"
#define distances distances_by_words
#include "hamming_measured.h"
#define nearer nearer_measured
#include "hamming_scan.h"

const hamming_kernels hamming_popcnt = HAMMING_KERNELS("popcnt");
#endif
