/* Codes where they lie, 64 at a time: what all instruction sets share. */

#define AHEAD (1 << 14) /* bytes: measured, for one query and codes in memory */

/* Most processors read ahead by themselves, but not far enough to keep the memory busy, and never past a page. The
 * address may lie beyond the codes, where asking does nothing. */
TARGET static inline void read_ahead(const uint8_t *codes, size_t bytes)
{
    if (!hamming_asks_ahead)
        return;
    for (size_t at = 0; at < bytes; at += 64)
        __builtin_prefetch((const void *)((uintptr_t)codes + AHEAD + at));
}

/* nearer() for codes of any length: measure all and compare. Wants distances(). */
TARGET static inline uint64_t nearer_measured(const uint8_t *query, const uint8_t *codes, size_t count,
                                              size_t n_bytes, unsigned limit, uint64_t *near)
{
    uint16_t found[64];
    uint64_t any = 0;
    for (size_t start = 0; start < count; start += 64) {
        const size_t some = count - start < 64 ? count - start : 64;
        read_ahead(codes + start * n_bytes, some * n_bytes);
        distances(query, codes + start * n_bytes, some, n_bytes, found);
        any |= near[start / 64] = less_than(found, some, limit);
    }
    return any;
}
