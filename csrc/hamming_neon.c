/* AArch64, where NEON is always there: the bits of each byte of 16 at once. */
#include "hamming.h"

#ifdef HAMMING_ARM
#include <arm_neon.h>

#define TARGET

static inline uint64_t popcount64(uint64_t x)
{
    return vaddv_u8(vcnt_u8(vcreate_u8(x)));
}

#include "hamming_words.h"

/* 8-byte codes, 8 at a time: three rounds of adding neighbours leave one 16-bit sum per code, in order. */
static inline void distances_8(const uint8_t *query, const uint8_t *codes, size_t count, uint16_t *out)
{
    const uint8x16_t wanted = vreinterpretq_u8_u64(vdupq_n_u64(load64(query)));
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        uint8x16_t bits[4];
        for (int j = 0; j < 4; j++)
            bits[j] = vcntq_u8(veorq_u8(vld1q_u8(codes + 8 * i + 16 * j), wanted));
        const uint8x16_t sums = vpaddq_u8(vpaddq_u8(bits[0], bits[1]), vpaddq_u8(bits[2], bits[3]));
        vst1q_u16(out + i, vpaddlq_u8(sums));
    }
    distances_by_words(query, codes + 8 * i, count - i, 8, out + i);
}

/* Codes of 16 bytes or more: whole vectors, and a last one that ends where the code ends, masked like the words. */
static inline void distances_wide(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes,
                                  uint16_t *out)
{
    const size_t whole = (n_bytes - 1) / 16, last = n_bytes - 16;
    uint8_t bytes[16] = {0};
    memset(bytes + 16 - (n_bytes - 16 * whole), 0xFF, n_bytes - 16 * whole);
    const uint8x16_t mask = vld1q_u8(bytes);
    for (size_t i = 0; i < count; i++, codes += n_bytes) {
        const uint8x16_t differ = vandq_u8(veorq_u8(vld1q_u8(codes + last), vld1q_u8(query + last)), mask);
        uint16x8_t sum = vpaddlq_u8(vcntq_u8(differ));
        for (size_t v = 0; v < whole; v++)
            sum = vpadalq_u8(sum, vcntq_u8(veorq_u8(vld1q_u8(codes + 16 * v), vld1q_u8(query + 16 * v))));
        out[i] = vaddvq_u16(sum);
    }
}

static inline void distances(const uint8_t *query, const uint8_t *codes, size_t count, size_t n_bytes, uint16_t *out)
{
    if (n_bytes == 8)
        distances_8(query, codes, count, out);
    else if (n_bytes < 16)
        distances_by_words(query, codes, count, n_bytes, out);
    else
        distances_wide(query, codes, count, n_bytes, out);
}

#include "hamming_measured.h"
#define nearer nearer_measured
#include "hamming_scan.h"

const hamming_kernels hamming_neon = HAMMING_KERNELS("neon");
#endif
