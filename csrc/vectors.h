/* Exact nearest neighbours among float32 vectors: what every instruction set offers, and the one way to reach it.
 *
 * A distance is a float64 sum in one fixed order, rounded once to float32: the same bits from every instruction set.
 *
 *     l2       the root of the sum of (q[i] - x[i])^2
 *     cosine   1 - cos, as half the sum of (q[i] / |q| - x[i] / |x|)^2, which keeps its digits where cos is near 1;
 *              1 where q or x is zero
 *
 * Callers have checked everything: nothing here allocates, fails or keeps state.
 *
 * A hit is one number, its key: the distance's bits, whose order is the order of distances since none is negative,
 * above the 32 bits of the row. So the order of keys is the order of hits, ties by row included.
 */
#ifndef FASTHASH_VECTORS_H
#define FASTHASH_VECTORS_H

#include <stddef.h>
#include <stdint.h>

#define VECTORS_ROW_BITS 32
#define VECTORS_MAX_LEVELS 2

typedef enum { VECTORS_L2, VECTORS_COSINE } vectors_metric;

typedef struct vectors_kernels {
    const char *name;

    /* The k nearest of n rows to each query, as sorted keys in keys[n_queries][k]. Wants finite numbers, dim of them
     * in a vector, and 1 <= k <= n. The rows are first, ..., first + n - 1, or with ids those n rows, in any order and
     * none twice. */
    void (*knn)(vectors_metric metric, const float *queries, size_t n_queries, const float *rows, size_t dim,
                const int64_t *ids, size_t first, size_t n, size_t k, uint64_t *keys);
} vectors_kernels;

/* The instruction sets this host can run, slowest first. Returns how many. */
size_t vectors_available(const vectors_kernels *levels[VECTORS_MAX_LEVELS]);

#if defined(__x86_64__)
#define VECTORS_X86 1
#endif

extern const vectors_kernels vectors_scalar;
extern const vectors_kernels vectors_avx2;

#endif
