/* Exact search on packed binary codes: what every instruction set offers, and the one way to reach it.
 *
 * Codes are rows of n_bytes bytes (1 to HAMMING_MAX_BYTES), one after another; bits past the last one are zero on
 * both sides, so they never count. Callers have checked everything: nothing here allocates, fails or keeps state.
 *
 * A hit is one number, its key: the distance in the top 16 bits, the index of the code in the low 48. So the order
 * of keys is the order of hits, ties by index included, and keys of different slices of the codes merge by sorting.
 */
#ifndef FASTHASH_HAMMING_H
#define FASTHASH_HAMMING_H

#include <stddef.h>
#include <stdint.h>

#define HAMMING_MAX_BYTES 512
#define HAMMING_INDEX_BITS 48
#define HAMMING_MAX_LEVELS 8

typedef struct hamming_kernels {
    const char *name;

    /* The k nearest codes of each query, as sorted keys in keys[n_queries][k]. Wants 1 <= k <= n_codes.
     * `first` is the index of the first code. */
    void (*knn)(const uint8_t *queries, size_t n_queries, const uint8_t *codes, size_t n_codes, size_t n_bytes,
                uint64_t first, size_t k, uint64_t *keys);

    /* Every code at most `radius` (up to 8 * HAMMING_MAX_BYTES) away from one query, as keys in index order.
     * Returns how many there are; only the first `capacity` of them are written. */
    size_t (*range)(const uint8_t *query, const uint8_t *codes, size_t n_codes, size_t n_bytes, uint64_t first,
                    unsigned radius, uint64_t *keys, size_t capacity);
} hamming_kernels;

/* The instruction sets this host can run, slowest first. Returns how many. */
size_t hamming_available(const hamming_kernels *levels[HAMMING_MAX_LEVELS]);

#if defined(__x86_64__)
#define HAMMING_X86 1
#elif defined(__aarch64__)
#define HAMMING_ARM 1
#endif

extern const hamming_kernels hamming_scalar;
extern const hamming_kernels hamming_popcnt;
extern const hamming_kernels hamming_avx2;
extern const hamming_kernels hamming_avx512;
extern const hamming_kernels hamming_avx512vpopcntdq;
extern const hamming_kernels hamming_neon;

#endif
