/* Exact search on packed binary codes: what every instruction set offers, and the one way to reach it.
 *
 * Codes are rows of n_bytes bytes (1 to HAMMING_MAX_BYTES), one after another; bits past the last one are zero on
 * both sides, so they never count. Callers have checked everything: nothing here allocates, fails or keeps state.
 *
 * A hit is one number, its key: the distance in the top 16 bits, the index of the code in the low 48. So the order
 * of keys is the order of hits, ties by index included, and keys of different parts of the codes merge by sorting.
 */
#ifndef FASTHASH_HAMMING_H
#define FASTHASH_HAMMING_H

#include <stddef.h>
#include <stdint.h>

#define HAMMING_MAX_BYTES 512
#define HAMMING_INDEX_BITS 48
#define HAMMING_MAX_LEVELS 8

/* Which codes to look at: rows[0], ..., rows[n - 1], which rise, or without rows first, ..., first + n - 1. */
typedef struct hamming_codes {
    const uint8_t *bytes;
    size_t n_bytes;
    const int64_t *rows;
    size_t first;
    size_t n;
} hamming_codes;

typedef struct hamming_kernels {
    const char *name;

    /* Offer every code to each query's heap, heaps[n_queries][k], which keeps the k least keys it has met. A heap
     * that has met none holds UINT64_MAX; one that goes on has met only codes of lower index. */
    void (*knn)(const hamming_codes *codes, const uint8_t *queries, size_t n_queries, size_t k, uint64_t *heaps);

    /* The k nearest codes of one query as sorted keys, by counting distances: for a k that is no small share of n.
     * Wants 1 <= k <= n. */
    void (*rank)(const hamming_codes *codes, const uint8_t *query, size_t k, uint64_t *keys);

    /* Every code at most `radius` (up to 8 * HAMMING_MAX_BYTES) away from one query, as keys in index order.
     * Returns how many there are; only the first `capacity` of them are written. */
    size_t (*range)(const hamming_codes *codes, const uint8_t *query, unsigned radius, uint64_t *keys,
                    size_t capacity);

    /* The distance of every code to one query. */
    void (*distances)(const hamming_codes *codes, const uint8_t *query, int32_t *out);

    /* Add weights[i] to counts[labels[i]][distance of code i], for rows of 8 * n_bytes + 1 distances. */
    void (*count)(const hamming_codes *codes, const uint8_t *query, const int64_t *labels, const int64_t *weights,
                  int64_t *counts);
} hamming_kernels;

/* The instruction sets this host can run, slowest first. Returns how many. To be called before any of them is. */
size_t hamming_available(const hamming_kernels *levels[HAMMING_MAX_LEVELS]);

#if defined(__x86_64__)
#define HAMMING_X86 1
#elif defined(__aarch64__)
#define HAMMING_ARM 1
#endif

/* Whether to ask for codes before their turn. As measured: AMD's family 19h (Zen 3 and 4) reads ahead at full speed by
 * itself, and asking takes a quarter more time; on others it saves as much. */
extern int hamming_asks_ahead;

extern const hamming_kernels hamming_scalar;
extern const hamming_kernels hamming_popcnt;
extern const hamming_kernels hamming_avx2;
extern const hamming_kernels hamming_avx512;
extern const hamming_kernels hamming_avx512vpopcntdq;
extern const hamming_kernels hamming_neon;

#endif
