/* The one way through a network, compiled once per instruction set. The file that includes this has defined
 *
 *     TARGET                 the attribute that names its instruction set
 *     LANES                  float32 numbers in a register, at most DENSE_ALIGN
 *     numbers                a vector of so many
 *     fused(a, b, c)         a * b + c, rounded once
 *     ROWS, COLUMNS          of the tile whose sums are in registers, when there are many rows
 *     WIDE                   columns of the same for a single row, at most 16
 */
#include <float.h>
#include <math.h>
#include <string.h>

typedef int32_t integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef float stored __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE TARGET static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define MOST 16 /* columns of any tile */

INLINE numbers load(const float *from)
{
    return (numbers) * (const stored *)from;
}

INLINE void store(float *to, numbers what)
{
    *(stored *)to = (stored)what;
}

INLINE numbers all_of(float number)
{
    return number - (numbers){0};
}

INLINE numbers choose(integers which, numbers yes, numbers no)
{
    return (numbers)((which & (integers)yes) | (~which & (integers)no));
}

/* The natural logarithm. A number is m * 2^e with m from the root of 1/2 to that of 2; of f = m - 1, log(1 + f) is
 * f - f^2 / 2 + f^3 * P(f), P being fitted to the least relative error of all (a tenth of the last bit, were it not for
 * its own rounding). Log 2 is the sum of two numbers, e times the first of which is exact. */
INLINE numbers logarithm(numbers x)
{
    static const float series[] = {-0.07634493f, 0.12761575f,  -0.13160183f, 0.14201759f,
                                   -0.16623357f, 0.20001227f, -0.2500082f,  0.33333331f};
    const integers subnormal = x < FLT_MIN;
    const words bits = (words)choose(subnormal, x * 0x1p23f, x), root_of_half = (words)all_of(0x1.6a09e6p-1f);
    const integers exponent = (integers)(bits - root_of_half) >> 23;
    const numbers f = (numbers)(bits - ((bits - root_of_half) & 0xff800000)) - 1, square = f * f;
    const numbers e = __builtin_convertvector(exponent - (subnormal & 23), numbers);
    numbers sum = all_of(series[0]);
    UNROLL
    for (size_t i = 1; i < sizeof series / sizeof *series; i++)
        sum = fused(sum, f, all_of(series[i]));
    sum = fused(sum * f, square, e * -0x1.05c610p-29f);
    sum = fused(all_of(-0.5f), square, sum);
    sum = fused(e, all_of(0x1.62e430p-1f), f + sum);
    const numbers of_zero = choose(x < 0, all_of(NAN), choose(x == 0, all_of(-INFINITY), x));
    return choose((x > 0) & (x < INFINITY), sum, of_zero);
}

/* A step of one number at a time, in place. */
TARGET static void step_by_number(const dense_step *step, float *row, size_t n)
{
    const numbers value = all_of(step->value);
    for (size_t i = 0; i < n; i += LANES) {
        const numbers x = load(row + i);
        switch (step->kind) {
        case DENSE_ADD:
            store(row + i, x + value);
            break;
        case DENSE_MULTIPLY:
            store(row + i, x * value);
            break;
        case DENSE_LOG:
            store(row + i, logarithm(x));
            break;
        default: /* DENSE_RELU; what is not a number stays so */
            store(row + i, (numbers)(~(x < 0) & (integers)x));
        }
    }
}

/* The inputs that are not 0 in all of n rows. Returns how many. */
TARGET static size_t find_used(const float *rows, size_t n, size_t width, size_t n_in, uint32_t *used)
{
    size_t count = 0;
    for (size_t k = 0; k < width; k += LANES) {
        words any = {0};
        for (size_t row = 0; row < n; row++)
            any |= (words)load(rows + row * width + k) << 1; /* without the sign */
        memcpy(used + k, &any, sizeof any);
    }
    for (size_t k = 0; k < n_in; k++) {
        const int is_used = used[k] != 0;
        used[count] = (uint32_t)k;
        count += (size_t)is_used;
    }
    return count;
}

/* What a tile reads and writes, rows of width numbers to rows of out_width. */
typedef struct product {
    const float *rows, *weights;
    const uint32_t *used;
    size_t width, n_used, out_width;
    float *out;
} product;

/* The sums of n rows from this one on, and of so many vectors of outputs from this column on. */
INLINE void tile(const product *p, size_t row, size_t n, size_t column, size_t vectors)
{
    const float *inputs[ROWS], *weights = p->weights + column * LANES;
    numbers sums[ROWS][MOST];
    UNROLL
    for (size_t i = 0; i < n; i++) {
        inputs[i] = p->rows + (row + i) * p->width;
        UNROLL
        for (size_t j = 0; j < vectors; j++)
            sums[i][j] = load(weights + j * LANES);
    }
    weights += p->out_width;
    for (size_t u = 0; u < p->n_used; u++) {
        const size_t k = p->used[u];
        numbers of_input[MOST];
        UNROLL
        for (size_t j = 0; j < vectors; j++)
            of_input[j] = load(weights + k * p->out_width + j * LANES);
        UNROLL
        for (size_t i = 0; i < n; i++) {
            const numbers x = all_of(inputs[i][k]);
            UNROLL
            for (size_t j = 0; j < vectors; j++)
                sums[i][j] = fused(x, of_input[j], sums[i][j]);
        }
    }
    UNROLL
    for (size_t i = 0; i < n; i++)
        UNROLL
        for (size_t j = 0; j < vectors; j++)
            store(p->out + (row + i) * p->out_width + (column + j) * LANES, sums[i][j] + 0);
}

#define CASE(count) \
    case count: \
        if (count <= most) \
            tile(p, row, height, column, count); \
        break;

/* All outputs of n rows, by tiles of at most so many rows and vectors of outputs, these as equal as can be. Vectors first:
 * their weights stay in the first-level cache. The last rows may be done twice, for the same sums. */
INLINE void tiles(const product *p, size_t n, size_t n_out, size_t height, size_t most)
{
    const size_t vectors = (n_out + LANES - 1) / LANES, count = (vectors + most - 1) / most;
    for (size_t i = 0; i < count; i++) {
        const size_t column = i * vectors / count, width = (i + 1) * vectors / count - column;
        for (size_t start = 0; start < n; start += height) {
            const size_t row = start + height <= n ? start : n - height;
            switch (width) {
                CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
                CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16)
            }
        }
    }
}

TARGET static void multiply_rows(const product *p, size_t n, size_t n_out)
{
    if (n < ROWS)
        tiles(p, n, n_out, 1, WIDE);
    else
        tiles(p, n, n_out, ROWS, COLUMNS);
}

/* The rows of a block through all steps; returns where their outputs are. */
TARGET static const float *run_block(const dense_network *network, size_t n, const dense_scratch *scratch)
{
    float *rows = scratch->rows, *products = scratch->products;
    size_t n_in = network->n_in;
    for (const dense_step *step = network->steps; step < network->steps + network->n_steps; step++) {
        const size_t width = dense_padded(n_in);
        if (step->kind != DENSE_PRODUCT) {
            step_by_number(step, rows, n * width);
            continue;
        }
        const size_t n_used = find_used(rows, n, width, n_in, scratch->used);
        const product p = {rows, step->weights, scratch->used, width, n_used, dense_padded(step->n_out), products};
        multiply_rows(&p, n, step->n_out);
        products = rows;
        rows = p.out;
        n_in = step->n_out;
    }
    return rows;
}

TARGET static int run(const dense_network *network, const float *inputs, size_t n, const dense_scratch *scratch,
                      float *outputs)
{
    const size_t n_in = network->n_in, n_out = network->n_out, width = dense_padded(n_in);
    int finite = 1;
    for (size_t start = 0; start < n; start += DENSE_BLOCK) {
        const size_t count = n - start < DENSE_BLOCK ? n - start : DENSE_BLOCK;
        for (size_t row = 0; row < count; row++) {
            memcpy(scratch->rows + row * width, inputs + (start + row) * n_in, n_in * sizeof *inputs);
            memset(scratch->rows + row * width + n_in, 0, (width - n_in) * sizeof *inputs);
        }
        const float *found = run_block(network, count, scratch);
        for (size_t row = 0; row < count; row++)
            for (size_t i = 0; i < n_out; i++) {
                const float number = found[row * dense_padded(n_out) + i];
                outputs[(start + row) * n_out + i] = number;
                finite &= fabsf(number) <= FLT_MAX;
            }
    }
    return finite;
}
