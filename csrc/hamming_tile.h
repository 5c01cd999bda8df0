/* The tile of an instruction set that knows only nibbles. */
#define TILED

TARGET static inline int tile_serves(size_t n_bytes, unsigned limit)
{
    return n_bytes <= NIBBLE_BYTES && (limit <= UINT8_MAX || 8 * n_bytes < UINT8_MAX);
}

TARGET static inline void tile_fill(const uint8_t *codes, size_t count, size_t n_bytes, uint8_t *tile)
{
    nibbles_fill(codes, count, n_bytes, tile);
}

TARGET static inline uint64_t tile_nearer(const uint8_t *query, const uint8_t *tile, size_t count, size_t n_bytes,
                                          unsigned limit, uint64_t *near)
{
    return nibbles_nearer(query, tile, count, n_bytes, limit, near);
}
