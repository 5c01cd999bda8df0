/* Many queries against one block of codes, without an instruction that counts bits.
 *
 * The codes of a block are laid out in columns: row r of the tile holds nibble r (four bits) of every code, a byte
 * each. A query has one nibble there, hence one table of 16 bytes, the bits by which each possible nibble differs from
 * it; one shuffle looks up a whole vector of codes, one addition adds it. (The "fast scan" of product quantisation:
 * Andre, Kermarrec and Le Scouarnec, "Cache locality is not enough", VLDB 2015.)
 *
 * Sums are bytes that stop at 255, so they tell what is nearer than a limit of up to 255, which is any limit for codes
 * of up to 31 bytes.
 *
 * The file that includes this has defined
 *
 *     vector                            of sizeof(vector) bytes
 *     load_vector(bytes), zero_vector()
 *     load_table(bytes)                 16 bytes, repeated all over a vector
 *     look_up(table, nibbles)           table[nibble] of each byte
 *     add_up_to_255(a, b)               of bytes
 *     less_bytes(sums, limit)           bit i tells whether byte i is less than limit
 */
#define NIBBLE_GROUP (4 * sizeof(vector)) /* codes whose sums are kept in registers together */
#define NIBBLE_BYTES 64                   /* longer codes would need a larger tile, and limits beyond 255 */

/* Byte i of word[j] becomes byte j of word[i]: swap blocks of 4 x 4, of 2 x 2, then neighbours. */
TARGET static inline void transpose_bytes(uint64_t word[8])
{
    const uint64_t low[] = {0x00FF00FF00FF00FFu, 0x0000FFFF0000FFFFu, 0x00000000FFFFFFFFu};
    for (int step = 2; step >= 0; step--)
        for (int j = 0; j < 8; j++) {
            const int other = j ^ 1 << step, shift = 8 << step;
            if (other < j)
                continue;
            const uint64_t change = (word[j] >> shift ^ word[other]) & low[step];
            word[other] ^= change;
            word[j] ^= change << shift;
        }
}

/* Eight bytes of each of 8 codes, from byte `at` on, to the tile's rows. */
TARGET static inline void put_nibbles(uint64_t word[8], size_t n_bytes, size_t at, uint8_t *column)
{
    transpose_bytes(word);
    for (size_t b = 0; b < 8 && at + b < n_bytes; b++) {
        const uint64_t low = word[b] & 0x0F0F0F0F0F0F0F0Fu, high = word[b] >> 4 & 0x0F0F0F0F0F0F0F0Fu;
        memcpy(column + 2 * (at + b) * NIBBLE_GROUP, &low, 8);
        memcpy(column + (2 * (at + b) + 1) * NIBBLE_GROUP, &high, 8);
    }
}

TARGET static inline void nibbles_fill(const uint8_t *codes, size_t count, size_t n_bytes, uint8_t *tile)
{
    const size_t end = count * n_bytes;
    for (size_t i = 0; i < count; i += 8) {
        uint8_t *column = tile + i / NIBBLE_GROUP * NIBBLE_GROUP * 2 * n_bytes + i % NIBBLE_GROUP;
        for (size_t at = 0; at < n_bytes; at += 8) {
            /* the last word ends where the code ends, and may repeat bytes of the one before it */
            const size_t from = n_bytes < 8 ? 0 : at + 8 > n_bytes ? n_bytes - 8 : at;
            uint64_t word[8] = {0};
            for (size_t j = 0; j < 8 && i + j < count; j++) {
                const size_t place = (i + j) * n_bytes + from;
                memcpy(&word[j], codes + place, place + 8 <= end ? 8 : n_bytes);
            }
            put_nibbles(word, n_bytes, from, column);
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

TARGET static inline uint64_t nibbles_nearer(const uint8_t *query, const uint8_t *tile, size_t count, size_t n_bytes,
                                             unsigned limit, uint64_t *near)
{
    const unsigned below = limit < UINT8_MAX ? limit : UINT8_MAX;
    uint64_t any = 0;
    for (size_t start = 0; start < count; start += NIBBLE_GROUP, tile += NIBBLE_GROUP * 2 * n_bytes) {
        vector sums[4] = {zero_vector(), zero_vector(), zero_vector(), zero_vector()};
        for (size_t b = 0; b < n_bytes; b++) {
            const uint8_t *row = tile + 2 * b * NIBBLE_GROUP;
            const vector low = load_table(apart[query[b] & 15]), high = load_table(apart[query[b] >> 4]);
            for (size_t j = 0; j < 4; j++)
                sums[j] = add_up_to_255(sums[j], look_up(low, load_vector(row + j * sizeof(vector))));
            for (size_t j = 0; j < 4; j++)
                sums[j] = add_up_to_255(sums[j], look_up(high, load_vector(row + NIBBLE_GROUP + j * sizeof(vector))));
        }
        uint64_t bits[NIBBLE_GROUP / 64] = {0};
        for (size_t j = 0; j < 4; j++)
            bits[j * sizeof(vector) / 64] |= less_bytes(sums[j], below) << j * sizeof(vector) % 64;
        for (size_t j = 0; j < NIBBLE_GROUP / 64 && start + 64 * j < count; j++)
            any |= near[start / 64 + j] = bits[j] & first_bits(count - start - 64 * j);
    }
    return any;
}
