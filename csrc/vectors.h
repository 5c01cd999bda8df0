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
#define VECTORS_MAX_LEVELS 3
#define VECTORS_STRIDE 16     /* the points of a graph are padded with zeros to a multiple of so many numbers */
#define VECTORS_MAX_LINKS 512 /* of a node */
#define VECTORS_LEAST 1e-15f  /* between these two, the squares of numbers and of their differences */
#define VECTORS_GREATEST 1e15f /* stay within what float32 can tell apart */

typedef enum { VECTORS_L2, VECTORS_COSINE } vectors_metric;

/* A Hierarchical Navigable Small World graph. Node i is at points[i * width], and stands for row rows[i]. Its links on
 * the bottom level are links[i * n_links], those on level j, which is at least 1, upper[(upper_at[i] + j - 1) * n_upper];
 * links that it lacks lead to itself. The entry is on level top. There are less than 2^31 nodes. */
typedef struct vectors_graph {
    const float *points;
    const uint32_t *rows, *links, *upper, *upper_at;
    size_t n_nodes, width, n_links, n_upper, top;
    uint32_t entry;
} vectors_graph;

/* What a walk writes to: pool[ef + 1], seen[n_nodes / 64 + 1], point[width]. */
typedef struct vectors_scratch {
    size_t ef;
    uint64_t *pool, *seen;
    float *point;
} vectors_scratch;

typedef struct vectors_kernels {
    const char *name;

    /* The k nearest of n rows to each query, as sorted keys in keys[n_queries][k]. Wants finite numbers, dim of them
     * in a vector, and 1 <= k <= n. The rows are first, ..., first + n - 1, or with ids those n rows, in any order and
     * none twice. */
    void (*knn)(vectors_metric metric, const float *queries, size_t n_queries, const float *rows, size_t dim,
                const int64_t *ids, size_t first, size_t n, size_t k, uint64_t *keys);

    /* About the k nearest to each query, as sorted keys in keys[n_queries][k]: of the best ef nodes, or fewer, that a
     * walk through the graph meets, and of the rows extra[n_extra], which are no nodes; k is at most ef. A query fails
     * that has less than k nodes to choose from, or numbers for which float32 is too short: its first key is
     * UINT64_MAX. Returns how many fail. */
    size_t (*search)(const vectors_graph *graph, vectors_metric metric, const float *queries, size_t n_queries,
                     const float *rows, size_t dim, const int64_t *extra, size_t n_extra, size_t k,
                     const vectors_scratch *scratch, uint64_t *keys);
} vectors_kernels;

/* The instruction sets this host can run, slowest first. Returns how many. */
size_t vectors_available(const vectors_kernels *levels[VECTORS_MAX_LEVELS]);

#if defined(__x86_64__)
#define VECTORS_X86 1
#endif

extern const vectors_kernels vectors_scalar;
extern const vectors_kernels vectors_avx2;
extern const vectors_kernels vectors_avx512;

#endif
