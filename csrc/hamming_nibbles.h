/* Many queries against one block of codes, without an instruction that counts bits.
 *
 * The codes of a block are laid out in columns: row r of the tile holds nibble r (four bits) of every code, a byte
 * each. A query has one nibble there, hence one table of 16 bytes, the bits by which each possible nibble differs from
 * it; one shuffle looks up a whole vector of codes, one addition adds it. (The "fast scan" of product quantisation:
 * Andre, Kermarrec and Le Scouarnec, "Cache locality is not enough", VLDB 2015.)
 *
 * Sums are bytes that stop at 255, so they tell what is nearer than a limit of up to 255, which is any limit for codes
 * of up to 31 bytes. Those of codes of up to 32 bytes are plain, which is faster: they fail at 256 only, which becomes
 * 0, and a code taken for near is but measured in vain.
 *
 * The file that includes this has defined
 *
 *     vector                            of sizeof(vector) bytes
 *     load_vector(bytes), zero_vector()
 *     load_table(bytes)                 16 bytes, repeated all over a vector
 *     look_up(table, nibbles)           table[nibble] of each byte
 *     add_bytes(a, b), add_up_to_255(a, b)
 *     less_bytes(sums, limit)           bit i tells whether byte i is less than limit
 */
#define NIBBLE_GROUP (4 * sizeof(vector)) /* codes whose sums are kept in registers together */
#define NIBBLE_BYTES 64                   /* longer codes would need a larger tile, and limits beyond 255 */

/* 16 rows of 8 bytes, two in a vector, become 8 rows of 16. The place of a byte among the 128 is 7 bits, those of its
 * row above those of its column; each round of interleaving the first half with the second turns these 7 bits by one
 * place to the left, so that after four rounds those of the row are below. */
TARGET static inline void transpose_16x8(__m128i rows[8])
{
    for (int round = 0; round < 4; round++) {
        __m128i next[8];
        for (int j = 0; j < 4; j++) {
            next[2 * j] = _mm_unpacklo_epi8(rows[j], rows[j + 4]);
            next[2 * j + 1] = _mm_unpackhi_epi8(rows[j], rows[j + 4]);
        }
        memcpy(rows, next, sizeof next);
    }
}

/* The nibbles of byte b of 16 codes go to rows 2 b and 2 b + 1. */
TARGET static inline void put_nibbles(__m128i bytes, uint8_t *column, size_t b)
{
    const __m128i nibble = _mm_set1_epi8(0x0F);
    _mm_store_si128((__m128i *)(column + 2 * b * NIBBLE_GROUP), _mm_and_si128(bytes, nibble));
    _mm_store_si128((__m128i *)(column + (2 * b + 1) * NIBBLE_GROUP),
                    _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble));
}

/* Eight bytes of each of 16 codes at a time. What is read beyond them is another's and goes nowhere; so that it is
 * never beyond the block, its last codes are copied. */
TARGET static inline void nibbles_fill(const uint8_t *codes, size_t count, size_t n_bytes, uint8_t *tile)
{
    uint8_t last[16 * NIBBLE_BYTES + 8] = {0};
    for (size_t i = 0; i < count; i += 16) {
        uint8_t *column = tile + i / NIBBLE_GROUP * NIBBLE_GROUP * 2 * n_bytes + i % NIBBLE_GROUP;
        const uint8_t *from = codes + i * n_bytes;
        if ((count - i) * n_bytes < 16 * n_bytes + 8)
            from = memcpy(last, from, (count - i) * n_bytes);
        for (size_t at = 0; at < n_bytes; at += 8) {
            __m128i bytes[8];
            for (size_t j = 0; j < 8; j++) {
                const uint8_t *two = from + 2 * j * n_bytes + at;
                bytes[j] = _mm_set_epi64x((long long)load64(two + n_bytes), (long long)load64(two));
            }
            transpose_16x8(bytes);
            for (size_t b = 0; b < 8 && at + b < n_bytes; b++)
                put_nibbles(bytes[b], column, at + b);
        }
    }
}

#define BITS(x) ((x & 1) + (x >> 1 & 1) + (x >> 2 & 1) + (x >> 3 & 1))
#define APART_4(q, x) BITS((q ^ (x))), BITS((q ^ (x + 1))), BITS((q ^ (x + 2))), BITS((q ^ (x + 3)))
#define APART(q) {APART_4(q, 0), APART_4(q, 4), APART_4(q, 8), APART_4(q, 12)}

/* The bits by which two nibbles differ. */
static const uint8_t apart[16][16] = {
    APART(0), APART(1), APART(2),  APART(3),  APART(4),  APART(5),  APART(6),  APART(7),
    APART(8), APART(9), APART(10), APART(11), APART(12), APART(13), APART(14), APART(15),
};

TARGET static inline vector add_to(vector sum, vector more, int plain)
{
    return plain ? add_bytes(sum, more) : add_up_to_255(sum, more);
}

TARGET static inline uint64_t nibble_sums(const uint8_t *query, const uint8_t *tile, size_t count, size_t n_bytes,
                                          unsigned limit, uint64_t *near, int plain)
{
    const unsigned below = limit < UINT8_MAX ? limit : UINT8_MAX;
    uint64_t any = 0;
    for (size_t start = 0; start < count; start += NIBBLE_GROUP, tile += NIBBLE_GROUP * 2 * n_bytes) {
        vector sums[4] = {zero_vector(), zero_vector(), zero_vector(), zero_vector()};
        for (size_t b = 0; b < n_bytes; b++) {
            const uint8_t *row = tile + 2 * b * NIBBLE_GROUP;
            const vector low = load_table(apart[query[b] & 15]), high = load_table(apart[query[b] >> 4]);
            for (size_t j = 0; j < 4; j++)
                sums[j] = add_to(sums[j], look_up(low, load_vector(row + j * sizeof(vector))), plain);
            for (size_t j = 0; j < 4; j++)
                sums[j] = add_to(sums[j], look_up(high, load_vector(row + NIBBLE_GROUP + j * sizeof(vector))), plain);
        }
        uint64_t *bits = near + start / 64;
        memset(bits, 0, NIBBLE_GROUP / 8);
        for (size_t j = 0; j < 4; j++)
            bits[j * sizeof(vector) / 64] |= less_bytes(sums[j], below) << j * sizeof(vector) % 64;
    }
    near[(count - 1) / 64] &= first_bits((count - 1) % 64 + 1); /* the last group may hold fewer codes than it has room for */
    for (size_t i = 0; 64 * i < count; i++)
        any |= near[i];
    return any;
}

TARGET static inline uint64_t nibbles_nearer(const uint8_t *query, const uint8_t *tile, size_t count, size_t n_bytes,
                                             unsigned limit, uint64_t *near)
{
    return n_bytes <= 32 ? nibble_sums(query, tile, count, n_bytes, limit, near, 1)
                         : nibble_sums(query, tile, count, n_bytes, limit, near, 0);
}
