/* Which instruction sets this host can run, asked when it runs: one build serves every host of an architecture. */
#include "hamming.h"

#if defined(HAMMING_X86)
#include <cpuid.h>

/* AMD's Zen 3 and 4. Not every compiler's __builtin_cpu_is knows the name: GCC's does from 11 on. */
static int is_amd_family_19h(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(0, &eax, &ebx, &ecx, &edx) || ebx != signature_AMD_ebx || ecx != signature_AMD_ecx)
        return 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (eax >> 8 & 0xF) + (eax >> 20 & 0xFF) == 0x19;
}
#endif

int hamming_asks_ahead = 1;

/* __builtin_cpu_supports asks the processor, and for AVX and AVX-512 also whether the operating system saves the
 * wider registers (XCR0). On AArch64 NEON is part of the architecture: there is nothing to ask. */
size_t hamming_available(const hamming_kernels *levels[HAMMING_MAX_LEVELS])
{
    size_t count = 0;
    levels[count++] = &hamming_scalar;
#if defined(HAMMING_X86)
    __builtin_cpu_init();
    hamming_asks_ahead = !is_amd_family_19h();
    const int popcnt = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    const int avx2 = popcnt && __builtin_cpu_supports("avx2");
    const int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
    const int avx512vp = avx512 && __builtin_cpu_supports("avx512vpopcntdq");
    if (popcnt)
        levels[count++] = &hamming_popcnt;
    if (avx2)
        levels[count++] = &hamming_avx2;
    if (avx512)
        levels[count++] = &hamming_avx512;
    if (avx512vp)
        levels[count++] = &hamming_avx512vpopcntdq;
#elif defined(HAMMING_ARM)
    levels[count++] = &hamming_neon;
#endif
    return count;
}
