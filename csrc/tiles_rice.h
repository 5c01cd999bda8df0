/* The Rice decoder (standard 4.0, section 10.4.1), compiled once per instruction set: TARGET names it, leading_zeros(word)
 * is how it counts them (of a zero any number from 63 on).
 *
 * A stream is the first integer, then blocks: the number of split bits plus 1, then for each integer the difference from
 * the one before, zigzag-folded; its high part in unary (zeros, then a one), its split bits as they are. A block that
 * says 0 is all zero differences; one that says the maximum holds them raw.
 *
 * What bounds a decoder is the chain from one code's length to the next code's place: count zeros, add, shift. So the
 * bits to come stand at the top of a word of 64, and are filled up from memory, without a branch, once for several codes.
 */
#include "tiles.h"

#include <string.h>

typedef struct bit_reader {
    const uint8_t *bytes;
    size_t readable; /* bytes that may be read: the stream, and what follows it in the heap */
    size_t at;       /* the next byte that is not wholly in word */
    uint64_t word;   /* the bits to come, the next one highest */
    unsigned held;   /* of which so many count */
} bit_reader;

/* Near the end of the heap, zeros follow. Apart, so that it takes no registers from the loops. */
TARGET static __attribute__((noinline, cold)) uint64_t load_last(const uint8_t *bytes, size_t at, size_t readable)
{
    uint64_t word = 0;
    for (size_t i = at; i < at + 8; i++)
        word = word << 8 | (i < readable ? bytes[i] : 0);
    return word;
}

TARGET static inline uint64_t load_8(const bit_reader *bits)
{
    if (__builtin_expect(bits->at + 8 > bits->readable, 0))
        return load_last(bits->bytes, bits->at, bits->readable);
    uint64_t word;
    memcpy(&word, bits->bytes + bits->at, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* After it at least 56 bits are held. */
TARGET static inline void refill(bit_reader *bits)
{
    bits->word |= load_8(bits) >> bits->held;
    bits->at += (63 - bits->held) >> 3;
    bits->held |= 56;
}

TARGET static inline void skip(bit_reader *bits, unsigned n)
{
    bits->word <<= n;
    bits->held -= n;
}

/* The next n bits, 1 to 32. */
TARGET static inline uint32_t take(bit_reader *bits, unsigned n)
{
    refill(bits);
    const uint32_t value = (uint32_t)(bits->word >> (64 - n));
    skip(bits, n);
    return value;
}

TARGET static inline size_t bits_taken(const bit_reader *bits)
{
    return 8 * bits->at - bits->held;
}

TARGET static inline uint32_t unfold(uint32_t folded)
{
    return (folded >> 1) ^ (0 - (folded & 1));
}

/* A code of any length. Returns 0 where the zeros of its high part do not end before bit ``end``. */
TARGET static int take_long_code(bit_reader *bits, unsigned split, size_t end, uint32_t *folded)
{
    uint32_t high = 0;
    for (refill(bits); bits->word >> 8 == 0; refill(bits)) {
        if (bits_taken(bits) > end)
            return 0;
        high += 56;
        skip(bits, 56);
    }
    const unsigned zeros = (unsigned)__builtin_clzll(bits->word);
    skip(bits, zeros + 1);
    *folded = (high + zeros) << split | (split ? take(bits, split) : 0);
    return 1;
}

/* The next ``group`` codes, a constant after inlining, from the 56 bits of one refill. Returns how many were taken: all,
 * or one where they need more bits, or none where that does not end. */
TARGET static inline __attribute__((always_inline)) size_t take_group(bit_reader *bits, unsigned split, size_t end,
                                                                      const size_t group, uint32_t *folded)
{
    refill(bits);
    uint64_t word = bits->word;
    unsigned used = 0;
    for (size_t j = 0; j < group; j++) {
        /* The leading one is the highest bit of what follows the zeros, and is taken off again. */
        const unsigned zeros = leading_zeros(word);
        word <<= zeros & 63;
        folded[j] = ((uint32_t)(zeros - 1) << split) + (uint32_t)(word >> (63 - split));
        word <<= split + 1;
        used += zeros + split + 1;
    }
    if (__builtin_expect(used > 56, 0)) {
        bit_reader apart = *bits; /* whose address may be known, so that that of bits is not: they stay in registers */
        const int taken = take_long_code(&apart, split, end, folded);
        *bits = apart;
        return (size_t)taken;
    }
    bits->word = word;
    bits->held -= used;
    return group;
}

/* The n codes of a block, still folded. Returns 0 where they do not end. */
TARGET static inline __attribute__((always_inline)) int take_codes(bit_reader *reader, unsigned split, size_t end,
                                                                   size_t n, const size_t group, uint32_t *folded)
{
    bit_reader bits = *reader;
    for (size_t i = 0; i < n;) {
        const size_t taken = n - i < group ? take_group(&bits, split, end, 1, folded + i)
                                           : take_group(&bits, split, end, group, folded + i);
        if (taken == 0)
            return 0;
        i += taken;
    }
    *reader = bits;
    return 1;
}

/* The n integers of a stream of ``length`` bytes. Returns 0 where it is damaged: where it does not end, to the byte, with
 * the last integer. */
TARGET static int decode_stream(const uint8_t *stream, size_t length, size_t readable, int bytepix, size_t blocksize,
                                size_t n, int32_t *out)
{
    const unsigned raw = 8 * (unsigned)bytepix;
    const unsigned width = bytepix == 4 ? 5 : bytepix == 2 ? 4 : 3; /* bits of the number of split bits */
    const unsigned most = bytepix == 4 ? 25 : bytepix == 2 ? 14 : 6;
    const size_t end = 8 * length;
    bit_reader bits = {stream, readable, 0, 0, 0};
    uint32_t last = take(&bits, raw);
    for (size_t i = 0; i < n; i += blocksize) {
        const size_t here = n - i < blocksize ? n - i : blocksize;
        const unsigned said = take(&bits, width);
        uint32_t *folded = (uint32_t *)out + i;
        if (said == 0) {
            for (size_t j = i; j < i + here; j++)
                out[j] = (int32_t)last;
        } else if (said == most + 1) {
            for (size_t j = 0; j < here; j++)
                folded[j] = take(&bits, raw);
        } else {
            const unsigned split = said - 1;
            if (split > most
                || !(split <= 7    ? take_codes(&bits, split, end, here, 4, folded)
                     : split <= 16 ? take_codes(&bits, split, end, here, 2, folded)
                                   : take_codes(&bits, split, end, here, 1, folded)))
                return 0;
        }
        if (bits_taken(&bits) > end)
            return 0;
        if (said) {
            for (size_t j = 0; j < here; j++)
                folded[j] = unfold(folded[j]);
            for (size_t j = 0; j < here; j++)
                folded[j] = last += folded[j];
        }
    }
    if (bytepix == 2)
        for (size_t i = 0; i < n; i++)
            out[i] = (int16_t)out[i];
    else if (bytepix == 1)
        for (size_t i = 0; i < n; i++)
            out[i] = (uint8_t)out[i];
    return (bits_taken(&bits) + 7) / 8 == length;
}
