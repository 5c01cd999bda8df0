/* What is the same for every instruction set: building tables, and which levels there are. */
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
