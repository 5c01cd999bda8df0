/* Exact search on packed binary codes below the cost of a scan: buckets, and multi-index hashing.
 *
 * A table sorts the codes of a segment by a substring of theirs, its key. Codes within distance d of a query are within
 * d / m of it in at least one of m substrings that share no bit, so looking up a query's own keys, then all keys one
 * bit away, then two, finds the nearest codes early, and tells when none nearer can be left: after radius s in tables
 * 0 to j, every code within m s + j has been met. The substrings need not cover the code.
 * Source: Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012.
 *
 * Hits are keys as in hamming.h. Callers have checked everything: nothing here allocates, fails or keeps state.
 */
#ifndef FASTHASH_MULTI_INDEX_H
#define FASTHASH_MULTI_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "hamming.h"

#define MULTI_INDEX_MAX_LEVELS 4
#define MULTI_INDEX_MAX_TABLES 64
#define MULTI_INDEX_MAX_KEY_BITS 30
#define MULTI_INDEX_WORD 8    /* bytes of a code that a table may keep beside its rows */
#define MULTI_INDEX_PADDING 8 /* bytes after the last word that may be read */

typedef struct multi_index_table {
    unsigned first_bit, key_bits;
    const uint32_t *offsets; /* 2^key_bits + 1: entries offsets[key] to offsets[key + 1] have that key */
    const uint32_t *rows;    /* of the entries, counted from the segment's first; they rise within a key */
    const uint8_t *words;    /* word_bytes bytes of each entry's code, from byte word_at on; NULL: none are kept */
    unsigned word_at, word_bytes;
} multi_index_table;

typedef struct multi_index_segment {
    uint64_t first, count; /* its rows */
    unsigned n_tables;     /* at least 1, and their substrings share no bit */
    multi_index_table tables[MULTI_INDEX_MAX_TABLES];
} multi_index_segment;

typedef struct multi_index {
    const uint8_t *codes;
    size_t n_codes, n_bytes, n_bits;
    const uint8_t *dead; /* bit row % 8 of byte row / 8: not a hit, whatever its code; NULL: none are dead */
    const multi_index_segment *segments;
    size_t n_segments; /* in order of rows; the codes after the last of them are in no table */
} multi_index;

/* What to look for: rows first to last - 1 only, and for each query no more work than budget, counted in comparisons of one entry. */
typedef struct multi_index_task {
    uint64_t first, last, budget;
} multi_index_task;

typedef struct multi_index_kernels {
    const char *name;

    /* The k nearest codes of each query, as sorted keys in keys[n_queries][k]. Wants 1 <= k, and k codes to be found. A
     * query whose budget runs out gets UINT64_MAX as its first key. */
    void (*knn)(const multi_index *index, const uint8_t *queries, size_t n_queries, const multi_index_task *task,
                size_t k, uint64_t *keys);

    /* Every code at most radius away, as keys in any order: `*hits` is how many there are, and the first `capacity` of
     * them are written. Returns 0 where the budget ran out. */
    int (*range)(const multi_index *index, const uint8_t *query, const multi_index_task *task, unsigned radius,
                 uint64_t *keys, size_t capacity, size_t *hits);
} multi_index_kernels;

/* The instruction sets this host can run, slowest first. Returns how many. */
size_t multi_index_available(const multi_index_kernels *levels[MULTI_INDEX_MAX_LEVELS]);

/* Fill a table's offsets, rows and words (where it has any) with `count` codes of n_bytes, fewer than 2^32. The arrays
 * are those that the table points to. */
void multi_index_build(const multi_index_table *table, const uint8_t *codes, size_t count, size_t n_bytes);

static inline int multi_index_is_dead(const multi_index *index, uint64_t row)
{
    return index->dead && index->dead[row / 8] >> row % 8 & 1;
}

/* Bits first_bit to first_bit + key_bits - 1 of a code, the first of them highest. No byte outside the code is read. */
static inline uint32_t multi_index_key(const multi_index_table *table, const uint8_t *code)
{
    const unsigned from = table->first_bit / 8, to = (table->first_bit + table->key_bits + 7) / 8;
    uint64_t bits = 0;
    for (unsigned i = from; i < to; i++)
        bits = bits << 8 | code[i];
    return (uint32_t)(bits >> (8 * to - table->first_bit - table->key_bits)) & (((uint32_t)1 << table->key_bits) - 1);
}

extern const multi_index_kernels multi_index_scalar;
extern const multi_index_kernels multi_index_popcnt;
extern const multi_index_kernels multi_index_avx512;
extern const multi_index_kernels multi_index_avx512vpopcntdq;

#endif
