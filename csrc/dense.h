/* Networks of fully connected layers: what every instruction set offers, and the one way to reach it.
 *
 * All of them give the same bits, for a row alone and for many. An output of a product is one chain of fused
 * multiply-adds that starts with its bias and takes the inputs in their order; outputs go side by side, so registers of
 * any width do the same sums. Inputs that are 0 in all rows at hand are passed over, which changes nothing but perhaps
 * the sign of a zero: an output that is 0 is +0.
 *
 * Callers have checked everything: nothing here allocates, fails or keeps state.
 */
#ifndef FASTHASH_DENSE_H
#define FASTHASH_DENSE_H

#include <stddef.h>
#include <stdint.h>

#define DENSE_MAX_LEVELS 3
#define DENSE_ALIGN 16 /* a row of numbers takes up a multiple of so many, and is aligned to 64 bytes */
#define DENSE_BLOCK 48 /* rows that go through all steps together */

typedef enum { DENSE_ADD, DENSE_MULTIPLY, DENSE_LOG, DENSE_RELU, DENSE_PRODUCT } dense_kind;

/* A product has the biases of its outputs in the first row of weights, then those of each input in a row, zeros to the
 * end of the row, all of them finite. The other steps take numbers one by one, and those to add or multiply have value. */
typedef struct dense_step {
    dense_kind kind;
    float value;
    const float *weights;
    size_t n_out;
} dense_step;

/* Widest is the most numbers that a row has on the way, its end included. */
typedef struct dense_network {
    const dense_step *steps;
    size_t n_steps, n_in, n_out, widest;
} dense_network;

/* What a run writes to: rows and products have room for widest numbers of each row of a block, used for one row of them;
 * all three are aligned. */
typedef struct dense_scratch {
    float *rows, *products;
    uint32_t *used;
} dense_scratch;

typedef struct dense_kernels {
    const char *name;

    /* outputs[n][n_out] of inputs[n][n_in]. Returns whether all of them are finite. */
    int (*run)(const dense_network *network, const float *inputs, size_t n, const dense_scratch *scratch,
               float *outputs);
} dense_kernels;

/* The instruction sets this host can run, slowest first. Returns how many. */
size_t dense_available(const dense_kernels *levels[DENSE_MAX_LEVELS]);

/* The numbers that a row of n takes up. */
static inline size_t dense_padded(size_t n)
{
    return ((n + DENSE_ALIGN - 1) / DENSE_ALIGN | 1) * DENSE_ALIGN;
}

#if defined(__x86_64__)
#define DENSE_X86 1
#elif defined(__aarch64__)
#define DENSE_ARM 1
#endif

extern const dense_kernels dense_scalar;
extern const dense_kernels dense_avx2;
extern const dense_kernels dense_avx512;
extern const dense_kernels dense_neon;

#endif
