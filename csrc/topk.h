/* The k least of many keys: a max-heap, whose root is the greatest key kept so far. */
#ifndef FASTHASH_TOPK_H
#define FASTHASH_TOPK_H

#include <stddef.h>
#include <stdint.h>

/* A heap of k keys that any key may replace. */
static inline void topk_clear(uint64_t *heap, size_t k)
{
    for (size_t i = 0; i < k; i++)
        heap[i] = UINT64_MAX;
}

/* Put a key in the root's place. */
static inline void topk_replace(uint64_t *heap, size_t k, uint64_t key)
{
    size_t hole = 0, child;
    while ((child = 2 * hole + 1) < k) {
        child += child + 1 < k && heap[child + 1] > heap[child];
        if (heap[child] <= key)
            break;
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = key;
}

static inline void topk_offer(uint64_t *heap, size_t k, uint64_t key)
{
    if (key < heap[0])
        topk_replace(heap, k, key);
}

/* Turn the heap into rising order. */
static inline void topk_sort(uint64_t *heap, size_t k)
{
    while (k-- > 1) {
        const uint64_t greatest = heap[0];
        topk_replace(heap, k, heap[k]);
        heap[k] = greatest;
    }
}

#endif
