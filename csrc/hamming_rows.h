/* Codes of 1, 2, 4, 8, 16 or 32 bytes where they lie, a vector of distances at a time. The file that includes this has
 * defined distances_wide() for other lengths from LEAST_WIDE bytes on (below, they go by words), and
 *
 *     vector, LANES                             of 16-bit numbers
 *     load_vector(bytes), store_vector(out, v)
 *     next_distances(codes, wanted, n_bytes)    the distances of the next LANES codes, in order, from the query
 *                                               repeated all over a vector; inlined where n_bytes is a constant
 *     less_64(distances, limit)                 which of 64 distances, in 64 / LANES vectors, are less than limit
 */

TARGET static inline vector repeat(const uint8_t *query, size_t n_bytes)
{
    uint8_t bytes[sizeof(vector)];
    for (size_t at = 0; at < sizeof bytes; at += n_bytes)
        memcpy(bytes + at, query, n_bytes);
    return load_vector(bytes);
}

TARGET static inline void distances_rows(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                         uint16_t *out)
{
    const vector wanted = repeat(query, n_bytes);
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        store_vector(out + i, next_distances(codes + i * n_bytes, wanted, n_bytes));
    distances_by_words(query, codes + i * n_bytes, count - i, n_bytes, out + i);
}

TARGET static inline void distances(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                    uint16_t *out)
{
    switch (n_bytes) {
    case 1: distances_rows(query, codes, count, 1, out); break;
    case 2: distances_rows(query, codes, count, 2, out); break;
    case 4: distances_rows(query, codes, count, 4, out); break;
    case 8: distances_rows(query, codes, count, 8, out); break;
    case 16: distances_rows(query, codes, count, 16, out); break;
    case 32: distances_rows(query, codes, count, 32, out); break;
    default: (n_bytes < LEAST_WIDE ? distances_by_words : distances_wide)(query, codes, count, n_bytes, out);
    }
}

#include "hamming_measured.h"

TARGET static inline uint64_t nearer_rows(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                          unsigned limit, uint64_t *near)
{
    const vector wanted = repeat(query, n_bytes);
    uint64_t any = 0;
    size_t i = 0;
    for (; i + 64 <= count; i += 64) {
        vector found[64 / LANES];
        read_ahead(codes + i * n_bytes, 64 * n_bytes);
        for (size_t j = 0; j < 64 / LANES; j++)
            found[j] = next_distances(codes + (i + j * LANES) * n_bytes, wanted, n_bytes);
        any |= near[i / 64] = less_64(found, limit);
    }
    if (i < count)
        any |= nearer_measured(query, codes + i * n_bytes, count - i, n_bytes, limit, near + i / 64);
    return any;
}

TARGET static inline uint64_t nearer(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                     unsigned limit, uint64_t *near)
{
    switch (n_bytes) {
    case 1: return nearer_rows(query, codes, count, 1, limit, near);
    case 2: return nearer_rows(query, codes, count, 2, limit, near);
    case 4: return nearer_rows(query, codes, count, 4, limit, near);
    case 8: return nearer_rows(query, codes, count, 8, limit, near);
    case 16: return nearer_rows(query, codes, count, 16, limit, near);
    case 32: return nearer_rows(query, codes, count, 32, limit, near);
    default: return nearer_measured(query, codes, count, n_bytes, limit, near);
    }
}
