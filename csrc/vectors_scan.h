/* The one scan loop, compiled once per instruction set. The file that includes this has defined
 *
 *     TARGET               the attribute that names its instruction set
 *     lanes                one float64, or a vector of 2, 4 or 8 of them
 *     widen(numbers)       as many float32 numbers as there are lanes
 *     narrow               one float32, or a vector of as many of them as there are in a register
 *     narrow_load(numbers) so many float32 numbers
 *
 * Rows are taken block by block, and a block serves every query before the next one is read from memory. For l2 a sum in
 * float32 says of most rows that they are too far, whatever its rounding; only the others are measured in float64.
 */
#include "topk.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define SUMS 8 /* partial sums: part of what a distance is, whatever the number of lanes */
#define LANES (sizeof(lanes) / sizeof(double))
#define NARROWS (sizeof(narrow) / sizeof(float))
#define LINE 16 /* float32 numbers in a cache line */
#define BLOCK_ROWS 256
#define BLOCK_BYTES (1 << 17)  /* so that a block stays in the second-level cache */
#define SAME_DIRECTION 2e-24   /* a smaller squared chord is the rounding of the two unit vectors */

/* The sum of (a[i] * a_scale - b[i] * b_scale)^2, or without b of (a[i] * a_scale)^2: partial sums, added up by
 * halves, then the last dim % SUMS terms. It is built without fused operations (-ffp-contract=off). */
TARGET static inline double sum_of_squares(const float *a, double a_scale, const float *b, double b_scale, size_t dim)
{
    lanes sums[SUMS / LANES] = {0};
    double sum[SUMS];
    size_t i = 0;
    for (; i + SUMS <= dim; i += SUMS)
        for (size_t j = 0; j < SUMS / LANES; j++) {
            lanes difference = widen(a + i + j * LANES) * a_scale;
            if (b)
                difference -= widen(b + i + j * LANES) * b_scale;
            sums[j] += difference * difference;
        }
    memcpy(sum, sums, sizeof sum);
    for (size_t half = SUMS / 2; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++)
            sum[j] += sum[j + half];
    for (; i < dim; i++) {
        const double difference = b ? a[i] * a_scale - b[i] * b_scale : a[i] * a_scale;
        sum[0] += difference * difference;
    }
    return sum[0];
}

/* The sum of VECTORS_STRIDE numbers, one half added to the other again and again. */
TARGET static inline float add_halves(const narrow *sums)
{
    float __attribute__((vector_size(32))) eight[2];
    float __attribute__((vector_size(16))) four[2];
    float __attribute__((vector_size(8))) two[2];
    memcpy(eight, sums, sizeof eight);
    eight[0] += eight[1];
    memcpy(four, eight, sizeof four);
    four[0] += four[1];
    memcpy(two, four, sizeof two);
    two[0] += two[1];
    return two[0][0] + two[0][1];
}

/* The same without scales in float32, as good as its rounding: partial sums of VECTORS_STRIDE terms, in one order too. */
TARGET static inline float rough_sum(const float *a, const float *b, size_t dim)
{
    narrow sums[VECTORS_STRIDE / NARROWS] = {0};
    size_t i = 0;
    for (; i + VECTORS_STRIDE <= dim; i += VECTORS_STRIDE)
        for (size_t j = 0; j < VECTORS_STRIDE / NARROWS; j++) {
            const narrow difference = narrow_load(a + i + j * NARROWS) - narrow_load(b + i + j * NARROWS);
            sums[j] += difference * difference;
        }
    float sum = add_halves(sums);
    for (; i < dim; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

/* What no rough sum exceeds whose row has a key below this one. A term of the sum is rounded three times, then at most
 * once for each stride, for each halving and for each number after the last stride, by 2^-24 of itself each time; twice
 * that leaves room for the distance's own rounding. Below the least normal number it is 2^-149 a term. */
static inline float rough_limit(uint64_t key, size_t dim)
{
    const uint32_t bits = (uint32_t)(key >> VECTORS_ROW_BITS);
    float distance;
    memcpy(&distance, &bits, sizeof distance);
    if (!(distance < INFINITY)) /* that of an empty place is no number */
        return INFINITY;
    const double slack = (double)(dim / VECTORS_STRIDE + 2 * VECTORS_STRIDE) * FLT_EPSILON;
    const double limit = (double)distance * distance * (1 + slack) + (double)dim * FLT_TRUE_MIN;
    return limit < FLT_MAX ? (float)limit : INFINITY;
}

/* What makes a vector a unit vector; 0 for a zero vector. */
TARGET static inline double unit_scale(const float *vector, size_t dim)
{
    const double sum = sum_of_squares(vector, 1, NULL, 0, dim);
    return sum > 0 ? 1 / sqrt(sum) : 0;
}

TARGET static inline float l2(const float *query, const float *row, size_t dim)
{
    return (float)sqrt(sum_of_squares(query, 1, row, 1, dim));
}

TARGET static inline float cosine(const float *query, double query_scale, const float *row, double row_scale,
                                  size_t dim)
{
    if (query_scale == 0 || row_scale == 0)
        return 1;
    const double chord = sum_of_squares(query, query_scale, row, row_scale, dim);
    return chord < SAME_DIRECTION ? 0 : (float)(chord / 2);
}

static inline uint64_t make_key(float distance, uint64_t row)
{
    uint32_t bits;
    memcpy(&bits, &distance, sizeof bits);
    return (uint64_t)bits << VECTORS_ROW_BITS | row;
}

/* The heaps, unsorted, of the nearest of n rows to each query. */
TARGET static void scan_heaps(vectors_metric metric, const float *queries, size_t n_queries, const float *rows,
                              size_t dim, const int64_t *ids, size_t first, size_t n, size_t k, uint64_t *keys)
{
    uint64_t row[BLOCK_ROWS];
    double scale[BLOCK_ROWS];
    const size_t fitting = BLOCK_BYTES / (dim * sizeof(float)) + 1;
    const size_t step = fitting < BLOCK_ROWS ? fitting : BLOCK_ROWS;
    topk_clear(keys, n_queries * k);
    for (size_t start = 0; start < n; start += step) {
        const size_t count = n - start < step ? n - start : step;
        for (size_t i = 0; i < count; i++) {
            row[i] = ids ? (uint64_t)ids[start + i] : first + start + i;
            for (size_t at = 0; ids && at < dim; at += LINE) /* scattered rows: let their misses overlap */
                __builtin_prefetch(rows + row[i] * dim + at);
        }
        for (size_t i = 0; metric == VECTORS_COSINE && i < count; i++)
            scale[i] = unit_scale(rows + row[i] * dim, dim);
        for (size_t q = 0; q < n_queries; q++) {
            const float *query = queries + q * dim;
            uint64_t *heap = keys + q * k;
            if (metric == VECTORS_L2) {
                float limit = rough_limit(heap[0], dim);
                for (size_t i = 0; i < count; i++) {
                    const float *vector = rows + row[i] * dim;
                    if (limit < INFINITY && rough_sum(query, vector, dim) > limit)
                        continue;
                    topk_offer(heap, k, make_key(l2(query, vector, dim), row[i]));
                    limit = rough_limit(heap[0], dim);
                }
            } else {
                const double query_scale = unit_scale(query, dim);
                for (size_t i = 0; i < count; i++) {
                    const float distance = cosine(query, query_scale, rows + row[i] * dim, scale[i], dim);
                    topk_offer(heap, k, make_key(distance, row[i]));
                }
            }
        }
    }
}

TARGET static void scan_knn(vectors_metric metric, const float *queries, size_t n_queries, const float *rows,
                            size_t dim, const int64_t *ids, size_t first, size_t n, size_t k, uint64_t *keys)
{
    scan_heaps(metric, queries, n_queries, rows, dim, ids, first, n, k, keys);
    for (size_t q = 0; q < n_queries; q++)
        topk_sort(keys + q * k, k);
}
