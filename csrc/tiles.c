/* Plain C, which runs anywhere and is what every other instruction set must agree with; and which of them there are. */
#define TARGET
#define leading_zeros(word) ((unsigned)__builtin_clzll((word) | 1))
#include "tiles_decode.h"

const tiles_kernels tiles_scalar = {"scalar", decode_tiles, count_pixels};

#if defined(TILES_X86)
#include <cpuid.h>

/* Not every compiler's __builtin_cpu_supports knows it by name: GCC's does from 11 on, Clang's 16 does not. */
static int has_lzcnt(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && (ecx >> 5 & 1);
}
#endif

size_t tiles_available(const tiles_kernels *levels[TILES_MAX_LEVELS])
{
    size_t count = 0;
    levels[count++] = &tiles_scalar;
#if defined(TILES_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && has_lzcnt())
        levels[count++] = &tiles_avx2;
#endif
    return count;
}

uint64_t tiles_datasum(const uint8_t *words, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, words + 4 * i, sizeof word);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        word = __builtin_bswap32(word);
#endif
        sum += word;
    }
    return sum;
}
