/* nearer() for codes of any length: measure all, 64 at a time, and compare. Wants distances(). */
TARGET static inline uint64_t nearer_measured(const uint8_t *query, const uint8_t *codes, size_t count,
                                              size_t n_bytes, unsigned limit, uint64_t *near)
{
    uint16_t found[64];
    uint64_t any = 0;
    for (size_t start = 0; start < count; start += 64) {
        const size_t some = count - start < 64 ? count - start : 64;
        distances(query, codes + start * n_bytes, some, n_bytes, found);
        any |= near[start / 64] = less_than(found, some, limit);
    }
    return any;
}
