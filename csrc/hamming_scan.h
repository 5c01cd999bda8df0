/* The one scan loop, compiled once per instruction set. The file that includes this has defined
 *
 *     TARGET                                              the attribute that names its instruction set
 *     distances(query, codes, count, n_bytes, out)        out[i] = distance to code i, for 1 to BLOCK codes
 *
 * Codes are taken block by block. The distances of a block go to a buffer that stays in the first-level cache, and
 * with them their least: while it is no nearer than the k-th hit so far, which soon is nearly always, the block is
 * done with one comparison. A block serves every query before the next one is read from memory.
 */
#include "topk.h"

#define BLOCK 512

/* Distances of a block; returns their least. */
TARGET static inline unsigned block_distances(const uint8_t *query, const uint8_t *codes, size_t count,
                                              size_t n_bytes, uint16_t *out)
{
    distances(query, codes, count, n_bytes, out);
    uint16_t least = UINT16_MAX;
    for (size_t i = 0; i < count; i++)
        least = out[i] < least ? out[i] : least;
    return least;
}

static inline uint64_t make_key(unsigned distance, uint64_t index)
{
    return (uint64_t)distance << HAMMING_INDEX_BITS | index;
}

/* Codes come in index order, so one that ties with the farthest hit kept comes after it: only nearer ones enter. */
TARGET static inline void offer_block(const uint16_t *found, size_t count, uint64_t index, size_t k, uint64_t *heap)
{
    for (size_t i = 0; i < count; i++)
        if (found[i] < heap[0] >> HAMMING_INDEX_BITS)
            topk_replace(heap, k, make_key(found[i], index + i));
}

TARGET static void scan_knn(const uint8_t *queries, size_t n_queries, const uint8_t *codes, size_t n_codes,
                            size_t n_bytes, uint64_t first, size_t k, uint64_t *keys)
{
    uint16_t found[BLOCK];
    topk_clear(keys, n_queries * k);
    for (size_t start = 0; start < n_codes; start += BLOCK) {
        const size_t count = n_codes - start < BLOCK ? n_codes - start : BLOCK;
        for (size_t q = 0; q < n_queries; q++) {
            uint64_t *heap = keys + q * k;
            const uint8_t *query = queries + q * n_bytes;
            const unsigned least = block_distances(query, codes + start * n_bytes, count, n_bytes, found);
            if (least < heap[0] >> HAMMING_INDEX_BITS)
                offer_block(found, count, first + start, k, heap);
        }
    }
    for (size_t q = 0; q < n_queries; q++)
        topk_sort(keys + q * k, k);
}

TARGET static size_t scan_range(const uint8_t *query, const uint8_t *codes, size_t n_codes, size_t n_bytes,
                                uint64_t first, unsigned radius, uint64_t *keys, size_t capacity)
{
    uint16_t found[BLOCK];
    size_t hits = 0;
    for (size_t start = 0; start < n_codes; start += BLOCK) {
        const size_t count = n_codes - start < BLOCK ? n_codes - start : BLOCK;
        if (block_distances(query, codes + start * n_bytes, count, n_bytes, found) > radius)
            continue;
        for (size_t i = 0; i < count; i++)
            if (found[i] <= radius) {
                if (hits < capacity)
                    keys[hits] = make_key(found[i], first + start + i);
                hits++;
            }
    }
    return hits;
}
