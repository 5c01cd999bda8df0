/* The one scan loop, compiled once per instruction set. The file that includes this has defined
 *
 *     TARGET                                              the attribute that names its instruction set
 *     distances(query, codes, count, n_bytes, out)        out[i] = distance to code i
 *     nearer(query, codes, count, n_bytes, limit, near)   bit i of near[] tells whether code i is nearer than limit;
 *                                                         returns 0 where none is
 *
 * and, where they shall not be as below, BLOCK_BYTES and LONG_BYTES; and, where many queries at once pay for another
 * layout of the codes, TILED and
 *
 *     tile_fill(codes, count, n_bytes, tile)              lays out a block of codes in TILE_BYTES
 *     tile_serves(n_bytes, limit)                         whether there is a layout for such codes and such a limit
 *     tile_nearer(query, tile, count, n_bytes, limit, near)   as nearer
 *
 * Codes are taken block by block. What is nearer than the k-th hit so far is found without a distance leaving the
 * registers: soon it is nearly nothing, and a block is done with one comparison. The few that are nearer are measured
 * again, by words. A block serves every query before the next one is read from memory.
 */
#include "topk.h"

#ifndef BLOCK_BYTES
#define BLOCK_BYTES (1 << 13) /* about, in a block: it and its tile stay in the first-level cache */
#define LONG_BYTES 64
#endif
#define BLOCK 1024                   /* codes in a block, at most */
#define GROUP 256                    /* codes: a block is a multiple of them, */
#define LONG_GROUP 64                /* or of these where they are longer than LONG_BYTES */
#define SCRATCH_BYTES (1 << 15)      /* holds a block of any codes */
#define TILE_BYTES (1 << 15)
#define MANY_QUERIES 8               /* that pay for a tile */
#define MASKS (BLOCK / 64)           /* a whole number of the groups a tile consists of */
#define MOST (8 * HAMMING_MAX_BYTES) /* no distance exceeds this */

static inline uint64_t make_key(unsigned distance, uint64_t index)
{
    return (uint64_t)distance << HAMMING_INDEX_BITS | index;
}

static inline size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t block_size(size_t n_bytes)
{
    const size_t group = n_bytes > LONG_BYTES ? LONG_GROUP : GROUP, groups = BLOCK_BYTES / n_bytes / group;
    return groups > 0 ? least_of(BLOCK, groups * group) : group;
}

static inline uint64_t index_of(const hamming_codes *codes, size_t i)
{
    return codes->rows ? (uint64_t)codes->rows[i] : codes->first + i;
}

TARGET static inline void gather(const hamming_codes *codes, const int64_t *rows, size_t count, size_t n_bytes,
                                 uint8_t *out)
{
    for (size_t i = 0; i < count; i++) /* let their misses overlap */
        __builtin_prefetch(codes->bytes + rows[i] * n_bytes);
    for (size_t i = 0; i < count; i++)
        memcpy(out + i * n_bytes, codes->bytes + rows[i] * n_bytes, n_bytes);
}

/* `count` codes from the start-th on, one after another: where they lie if they are neighbours, else in scratch. */
TARGET static const uint8_t *block_at(const hamming_codes *codes, size_t start, size_t count, uint8_t *scratch)
{
    if (!codes->rows)
        return codes->bytes + (codes->first + start) * codes->n_bytes;
    const int64_t *rows = codes->rows + start;
    if ((size_t)(rows[count - 1] - rows[0]) == count - 1)
        return codes->bytes + rows[0] * codes->n_bytes;
    switch (codes->n_bytes) { /* a copy of a known size is a few instructions */
    case 8: gather(codes, rows, count, 8, scratch); break;
    case 16: gather(codes, rows, count, 16, scratch); break;
    case 32: gather(codes, rows, count, 32, scratch); break;
    default: gather(codes, rows, count, codes->n_bytes, scratch);
    }
    return scratch;
}

/* A code as far away as the farthest hit kept comes after it: only nearer ones enter. */
static inline unsigned limit_of(const uint64_t *heap)
{
    return (unsigned)least_of(heap[0] >> HAMMING_INDEX_BITS, MOST + 1);
}

/* The keys of the codes in near[], in order of index; returns how many. */
TARGET static inline size_t measure(const hamming_codes *codes, size_t start, const uint8_t *block, size_t count,
                                    const uint8_t *query, const uint64_t *near, uint64_t *keys)
{
    size_t found = 0;
    for (size_t group = 0; 64 * group < count; group++)
        for (uint64_t left = near[group]; left; left &= left - 1) {
            const size_t i = 64 * group + (size_t)__builtin_ctzll(left);
            const unsigned distance = distance_by_words(query, block + i * codes->n_bytes, codes->n_bytes);
            keys[found++] = make_key(distance, index_of(codes, start + i));
        }
    return found;
}

TARGET static void scan_knn(const hamming_codes *codes, const uint8_t *queries, size_t n_queries, size_t k,
                            uint64_t *heaps)
{
    uint8_t scratch[SCRATCH_BYTES];
    uint64_t near[MASKS], found[BLOCK];
    const size_t n_bytes = codes->n_bytes, whole = block_size(n_bytes);
#ifdef TILED
    uint8_t tile[TILE_BYTES] __attribute__((aligned(64)));
    const int tiled = n_queries >= MANY_QUERIES && tile_serves(n_bytes, 0);
#endif
    /* The first blocks are short: all of their codes may be near. */
    for (size_t start = 0, count, size = 64; start < codes->n; start += count, size = least_of(2 * size, whole)) {
        count = least_of(size, codes->n - start);
        const uint8_t *block = block_at(codes, start, count, scratch);
#ifdef TILED
        if (tiled)
            tile_fill(block, count, n_bytes, tile);
#endif
        for (size_t q = 0; q < n_queries; q++) {
            const uint8_t *query = queries + q * n_bytes;
            uint64_t *heap = heaps + q * k, any;
            const unsigned limit = limit_of(heap);
#ifdef TILED
            if (tiled && 64 * q < whole * n_bytes) /* each query asks for a line of the next block */
                __builtin_prefetch((const void *)((uintptr_t)block + count * n_bytes + 64 * q));
            if (tiled && tile_serves(n_bytes, limit))
                any = tile_nearer(query, tile, count, n_bytes, limit, near);
            else
#endif
                any = nearer(query, block, count, n_bytes, limit, near);
            if (!any)
                continue;
            const size_t hits = measure(codes, start, block, count, query, near, found);
            for (size_t i = 0; i < hits; i++)
                topk_offer(heap, k, found[i]);
        }
    }
}

TARGET static size_t scan_range(const hamming_codes *codes, const uint8_t *query, unsigned radius, uint64_t *keys,
                                size_t capacity)
{
    uint8_t scratch[SCRATCH_BYTES];
    uint64_t near[MASKS], found[BLOCK];
    const size_t n_bytes = codes->n_bytes, size = block_size(n_bytes);
    size_t hits = 0;
    for (size_t start = 0, count; start < codes->n; start += count) {
        count = least_of(size, codes->n - start);
        const uint8_t *block = block_at(codes, start, count, scratch);
        if (!nearer(query, block, count, n_bytes, radius + 1, near))
            continue;
        const size_t more = measure(codes, start, block, count, query, near, found);
        if (hits < capacity)
            memcpy(keys + hits, found, least_of(more, capacity - hits) * sizeof *keys);
        hits += more;
    }
    return hits;
}

/* Twice over the codes: count the distances, which says where the keys of each begin; then put them there. */
TARGET static void scan_rank(const hamming_codes *codes, const uint8_t *query, size_t k, uint64_t *keys)
{
    uint8_t scratch[SCRATCH_BYTES];
    uint16_t found[BLOCK];
    size_t next[MOST + 2] = {0}, end[MOST + 1];
    const size_t n_bytes = codes->n_bytes, size = block_size(n_bytes);
    for (size_t start = 0, count; start < codes->n; start += count) {
        count = least_of(size, codes->n - start);
        distances(query, block_at(codes, start, count, scratch), count, n_bytes, found);
        for (size_t i = 0; i < count; i++)
            next[found[i] + 1]++;
    }
    for (size_t distance = 0; distance <= 8 * n_bytes; distance++) {
        next[distance + 1] += next[distance];
        end[distance] = least_of(next[distance + 1], k);
    }
    for (size_t start = 0, count; start < codes->n; start += count) {
        count = least_of(size, codes->n - start);
        distances(query, block_at(codes, start, count, scratch), count, n_bytes, found);
        for (size_t i = 0; i < count; i++)
            if (next[found[i]] < end[found[i]])
                keys[next[found[i]]++] = make_key(found[i], index_of(codes, start + i));
    }
}

TARGET static void scan_distances(const hamming_codes *codes, const uint8_t *query, int32_t *out)
{
    uint8_t scratch[SCRATCH_BYTES];
    uint16_t found[BLOCK];
    const size_t n_bytes = codes->n_bytes, size = block_size(n_bytes);
    for (size_t start = 0, count; start < codes->n; start += count) {
        count = least_of(size, codes->n - start);
        distances(query, block_at(codes, start, count, scratch), count, n_bytes, found);
        for (size_t i = 0; i < count; i++)
            out[start + i] = found[i];
    }
}

TARGET static void scan_count(const hamming_codes *codes, const uint8_t *query, const int64_t *labels,
                              const int64_t *weights, int64_t *counts)
{
    uint8_t scratch[SCRATCH_BYTES];
    uint16_t found[BLOCK];
    const size_t n_bytes = codes->n_bytes, size = block_size(n_bytes), width = 8 * n_bytes + 1;
    for (size_t start = 0, count; start < codes->n; start += count) {
        count = least_of(size, codes->n - start);
        distances(query, block_at(codes, start, count, scratch), count, n_bytes, found);
        for (size_t i = 0; i < count; i++)
            counts[(size_t)labels[start + i] * width + found[i]] += weights[start + i];
    }
}

#define HAMMING_KERNELS(name) {name, scan_knn, scan_rank, scan_range, scan_distances, scan_count}
