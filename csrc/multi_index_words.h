/* Words one by one. The file that includes this has defined TARGET and popcount64(word). */
#include <string.h>

TARGET static inline unsigned near_by_words(const uint8_t *words, unsigned count, uint64_t wanted, unsigned limit)
{
    unsigned near = 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t word;
        memcpy(&word, words + 8 * i, 8);
        near |= (unsigned)(popcount64(word ^ wanted) <= limit) << i;
    }
    return near;
}
