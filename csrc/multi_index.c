/* What is the same for every instruction set: building tables, ranking by counting, and which levels there are. */
#include "multi_index.h"

#include <string.h>

/* A stable counting sort by key. Between the passes offsets[key + 1] is where the next entry of a key goes; at the
 * end that is where the key after it begins. */
void multi_index_build(const multi_index_table *table, const uint8_t *codes, size_t count, size_t n_bytes)
{
    const size_t n_keys = (size_t)1 << table->key_bits, width = table->word_bytes;
    uint32_t *offsets = (uint32_t *)table->offsets, *rows = (uint32_t *)table->rows;
    uint8_t *words = (uint8_t *)table->words;
    memset(offsets, 0, (n_keys + 1) * sizeof *offsets);
    for (size_t i = 0; i < count; i++)
        offsets[multi_index_key(table, codes + i * n_bytes) + 1]++;
    uint32_t sum = 0;
    for (size_t key = 1; key <= n_keys; key++) {
        const uint32_t here = offsets[key];
        offsets[key] = sum;
        sum += here;
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *code = codes + i * n_bytes;
        const size_t entry = offsets[multi_index_key(table, code) + 1]++;
        rows[entry] = (uint32_t)i;
        if (words)
            memcpy(words + entry * width, code + table->word_at, width);
    }
    if (words)
        memset(words + count * width, 0, MULTI_INDEX_PADDING);
}

/* A stable counting sort by distance, which is looked up: there are only 2^16 codes. */
void multi_index_rank(const multi_index *index, const uint8_t *query, const multi_index_task *task, size_t k,
                      uint64_t *keys)
{
    uint8_t distance_of[1 << 16];
    size_t place[18] = {0}; /* of the next hit at each distance */
    const int wide = index->n_bytes == 2;
    const unsigned wanted = wide ? query[0] << 8 | query[1] : query[0];
    const uint8_t *codes = index->codes;
    for (unsigned code = 0; code < (wide ? 1u << 16 : 1u << 8); code++)
        distance_of[code] = (uint8_t)(code ? distance_of[code & (code - 1)] + 1 : 0);
#define DISTANCE(row) distance_of[wanted ^ (unsigned)(wide ? codes[2 * (row)] << 8 | codes[2 * (row) + 1] : codes[row])]
    for (uint64_t row = task->first; row < task->last; row++)
        if (!multi_index_is_dead(index, row))
            place[DISTANCE(row) + 1]++;
    for (unsigned distance = 1; distance < 18; distance++)
        place[distance] += place[distance - 1];
    for (uint64_t row = task->first; row < task->last; row++) {
        if (multi_index_is_dead(index, row))
            continue;
        const unsigned distance = DISTANCE(row);
        if (place[distance] < k)
            keys[place[distance]++] = (uint64_t)distance << HAMMING_INDEX_BITS | row;
    }
#undef DISTANCE
}

size_t multi_index_available(const multi_index_kernels *levels[MULTI_INDEX_MAX_LEVELS])
{
    size_t count = 0;
    levels[count++] = &multi_index_scalar;
#if defined(HAMMING_X86)
    __builtin_cpu_init();
    const int popcnt = __builtin_cpu_supports("popcnt");
    const int avx512 = popcnt && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
    if (popcnt)
        levels[count++] = &multi_index_popcnt;
    if (avx512)
        levels[count++] = &multi_index_avx512;
    if (avx512 && __builtin_cpu_supports("avx512vpopcntdq"))
        levels[count++] = &multi_index_avx512vpopcntdq;
#endif
    return count;
}
