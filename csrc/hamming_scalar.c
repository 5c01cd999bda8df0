/* Plain C: runs anywhere, and is what every other instruction set must agree with. */
#include "hamming.h"

#define TARGET

/* Sums of neighbouring 1, 2, 4 bits, then one multiplication adds up the bytes. */
static inline uint64_t popcount64(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
    return x * 0x0101010101010101u >> 56;
}

#include "hamming_words.h"
#define distances distances_by_words
#include "hamming_measured.h"
#define nearer nearer_measured
#include "hamming_scan.h"

const hamming_kernels hamming_scalar = HAMMING_KERNELS("scalar");
