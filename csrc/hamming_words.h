/* Distances by 8-byte words. The file that includes this has defined TARGET and popcount64(word).
 *
 * A code is `whole` words and a last one that ends where the code ends: it may overlap the word before it, and a mask
 * keeps the bits already counted out. So no load leaves the code, whatever its length.
 */
#include <string.h>

TARGET static inline uint64_t load64(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, 8);
    return word;
}

/* A word whose last `n` bytes in memory are ones: the same on either byte order. */
TARGET static inline uint64_t last_bytes_mask(size_t n)
{
    uint8_t bytes[8] = {0};
    memset(bytes + 8 - n, 0xFF, n);
    return load64(bytes);
}

/* Codes of fewer than 8 bytes: a whole word is read as long as it stays inside the codes, then only the code. */
TARGET static inline void distances_short(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                          uint16_t *out)
{
    uint64_t wanted = 0, mask = 0, word;
    memcpy(&wanted, query, n_bytes);
    memset(&mask, 0xFF, n_bytes);
    size_t i = 0;
    for (; (i * n_bytes) + 8 <= count * n_bytes; i++)
        out[i] = (uint16_t)popcount64((load64(codes + i * n_bytes) & mask) ^ wanted);
    for (; i < count; i++) {
        word = 0;
        memcpy(&word, codes + i * n_bytes, n_bytes);
        out[i] = (uint16_t)popcount64(word ^ wanted);
    }
}

/* Codes of 8 bytes or more. Inlined where n_bytes is a constant, the inner loop unrolls. */
TARGET static inline void distances_long(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                         uint16_t *out)
{
    const size_t whole = (n_bytes - 1) / 8, last = n_bytes - 8;
    const uint64_t mask = last_bytes_mask(n_bytes - 8 * whole);
    for (size_t i = 0; i < count; i++, codes += n_bytes) {
        uint64_t sum = popcount64((load64(codes + last) ^ load64(query + last)) & mask);
        for (size_t w = 0; w < whole; w++)
            sum += popcount64(load64(codes + 8 * w) ^ load64(query + 8 * w));
        out[i] = (uint16_t)sum;
    }
}

TARGET static void distances_by_words(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                      uint16_t *out)
{
    switch (n_bytes) {
    case 8: distances_long(query, codes, count, 8, out); break;
    case 16: distances_long(query, codes, count, 16, out); break;
    case 32: distances_long(query, codes, count, 32, out); break;
    default: (n_bytes < 8 ? distances_short : distances_long)(query, codes, count, n_bytes, out);
    }
}

/* The first n of 64 bits, or all of them where n is more. */
static inline uint64_t first_bits(size_t n)
{
    return n < 64 ? ((uint64_t)1 << n) - 1 : UINT64_MAX;
}

/* The distance of one code. */
TARGET static inline unsigned distance_by_words(const uint8_t *query, const uint8_t *code, size_t n_bytes)
{
    uint64_t sum = 0, a = 0, b = 0;
    size_t at = 0;
    for (; at + 8 <= n_bytes; at += 8)
        sum += popcount64(load64(query + at) ^ load64(code + at));
    if (at < n_bytes) {
        memcpy(&a, query + at, n_bytes - at);
        memcpy(&b, code + at, n_bytes - at);
        sum += popcount64(a ^ b);
    }
    return (unsigned)sum;
}

/* Bit i tells whether found[i] is less than limit, for up to 64. Most often none is, and the least of them says so. */
TARGET static inline uint64_t less_than(const uint16_t *found, size_t count, unsigned limit)
{
    uint16_t least = UINT16_MAX;
    uint64_t bits = 0;
    for (size_t i = 0; i < count; i++)
        least = found[i] < least ? found[i] : least;
    for (size_t i = 0; least < limit && i < count; i++)
        bits |= (uint64_t)(found[i] < limit) << i;
    return bits;
}
