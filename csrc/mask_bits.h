/* The mask of a comparison as an integer. The file that includes this has defined TARGET.
 *
 * GCC 12 and some later versions lose the zeros above a mask that is compared and widened in one expression: they write
 * the mask's own bytes only, and where the integer is spilled, the others are what the stack held before (the patterns
 * *ucmp*_zero_extend* of its sse.md, which were mended since). No pattern matches across the empty asm.
 */
TARGET static inline unsigned bits_of_8(__mmask8 mask)
{
    __asm__("" : "+r"(mask));
    return mask;
}

TARGET static inline uint64_t bits_of_32(__mmask32 mask)
{
    __asm__("" : "+r"(mask));
    return mask;
}
