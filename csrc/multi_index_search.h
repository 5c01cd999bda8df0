/* The one search, compiled once per instruction set. The file that includes this has defined
 *
 *     TARGET               the attribute that names its instruction set
 *     popcount64(word)     the number of one bits
 *     near8(words, count, wanted, limit)
 *                          a bit for each of 1 to 8 neighbouring words at most limit bits away from wanted
 *
 * Nearly all the time goes into waiting for memory, so everything is asked for before it is needed: a batch of keys
 * first fetches its offsets, then the words of its entries, then, for the few entries that pass, rows and codes.
 */
#include "multi_index.h"
#include "topk.h"

#include <string.h>

#define BATCH 128         /* keys under way at once */
#define PENDING 256       /* entries that passed, under way at once */
#define PROBE_COST 16     /* looking up a key, in comparisons of one entry with a word at hand */
#define SETTLE_COST 8     /* an entry that passed, the same */
#define LINE 64           /* bytes in a cache line */
#define MAX_LINES 8       /* the processor itself fetches what comes after so many neighbours */
#define NO_LIMIT (8 * HAMMING_MAX_BYTES)

typedef struct search {
    const multi_index *index;
    const uint8_t *query;
    const multi_index_task *task;
    uint64_t cost;
    unsigned limit; /* a code farther away is no hit */
    uint64_t *keys; /* of the nearest, a heap of k that starts out full of UINT64_MAX; of a range, a list */
    size_t k, capacity, hits;
} search;

/* One table of one segment, as one query meets it. */
typedef struct visit {
    const multi_index_segment *segment;
    const multi_index_table *table;
    const uint32_t *own_keys; /* the query's, one for each table */
    unsigned at, radius;
    const uint8_t *codes;     /* the segment's first */
    uint64_t word, mask;      /* the query's word, and which of its bits are kept */
    int exact;                /* a word is the whole code */
    unsigned known;           /* bits that differ outside of the word */
    size_t n_pending;
    uint32_t pending[PENDING];
} visit;

TARGET static inline uint64_t load_word(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, 8);
    return word;
}

TARGET static inline unsigned full_distance(const uint8_t *a, const uint8_t *b, size_t n_bytes)
{
    unsigned sum = 0;
    size_t i = 0;
    for (; i + 8 <= n_bytes; i += 8)
        sum += (unsigned)popcount64(load_word(a + i) ^ load_word(b + i));
    if (i < n_bytes) {
        uint64_t x = 0, y = 0;
        memcpy(&x, a + i, n_bytes - i);
        memcpy(&y, b + i, n_bytes - i);
        sum += (unsigned)popcount64(x ^ y);
    }
    return sum;
}

/* A hit that has not been met before, unless it is dead or outside of the rows asked for. */
TARGET static inline void take(search *s, unsigned distance, uint64_t row)
{
    if (row < s->task->first || row >= s->task->last || multi_index_is_dead(s->index, row))
        return;
    const uint64_t key = (uint64_t)distance << HAMMING_INDEX_BITS | row;
    if (s->k == 0) { /* a range */
        if (s->hits < s->capacity)
            s->keys[s->hits] = key;
        s->hits++;
    } else if (key < s->keys[0]) {
        topk_replace(s->keys, s->k, key);
        const uint64_t farthest = s->keys[0] >> HAMMING_INDEX_BITS;
        s->limit = farthest < s->limit ? (unsigned)farthest : s->limit;
    }
}

/* Was the code met at a smaller radius, or at this one in a table before this? Its keys tell. */
TARGET static inline int met_before(const visit *v, const uint8_t *code)
{
    for (unsigned j = 0; j < v->segment->n_tables; j++) {
        const uint32_t differ = multi_index_key(&v->segment->tables[j], code) ^ v->own_keys[j];
        if (j != v->at && (unsigned)popcount64(differ) + (j > v->at) <= v->radius)
            return 1;
    }
    return 0;
}

/* The entries that passed: their rows were fetched when they did, now their codes are. */
TARGET static void settle(search *s, visit *v)
{
    const multi_index_table *table = v->table;
    const size_t n_bytes = s->index->n_bytes;
    s->cost += v->n_pending * SETTLE_COST;
    if (!v->exact)
        for (size_t i = 0; i < v->n_pending; i++) {
            const uint8_t *code = v->codes + table->rows[v->pending[i]] * n_bytes;
            __builtin_prefetch(code);
            __builtin_prefetch(code + n_bytes - 1);
        }
    for (size_t i = 0; i < v->n_pending; i++) {
        const size_t entry = v->pending[i], row = table->rows[entry];
        const uint8_t *code = v->exact ? table->words + entry * table->word_bytes : v->codes + row * n_bytes;
        const unsigned distance = full_distance(code, s->query, n_bytes);
        if (distance <= s->limit && !met_before(v, code))
            take(s, distance, v->segment->first + row);
    }
    v->n_pending = 0;
}

TARGET static inline void pass(search *s, visit *v, uint32_t entry)
{
    if (v->n_pending == PENDING)
        settle(s, v);
    v->pending[v->n_pending++] = entry;
    __builtin_prefetch(v->table->rows + entry);
}

/* Which entries from begin to end - 1 may be near enough, by the part of their codes that is at hand. It stops where
 * so many are that the budget runs out. */
TARGET static inline void sift(search *s, visit *v, uint32_t begin, uint32_t end)
{
    const multi_index_table *table = v->table;
    const unsigned limit = s->limit < v->known ? 0 : s->limit - v->known;
    if (s->limit < v->known)
        return;
    if (!table->words)
        for (uint32_t entry = begin; entry < end && s->cost <= s->task->budget; entry++)
            pass(s, v, entry);
    else if (table->word_bytes == 8)
        for (uint32_t entry = begin; entry < end && s->cost <= s->task->budget; entry += 8) {
            const uint32_t count = end - entry < 8 ? end - entry : 8;
            unsigned near = near8(table->words + (size_t)entry * 8, count, v->word, limit);
            for (; near; near &= near - 1)
                pass(s, v, entry + (uint32_t)__builtin_ctz(near));
        }
    else
        for (uint32_t entry = begin; entry < end && s->cost <= s->task->budget; entry++) {
            const uint64_t word = load_word(table->words + (size_t)entry * table->word_bytes) & v->mask;
            if (popcount64(word ^ v->word) <= limit)
                pass(s, v, entry);
        }
}

/* The keys of a table that are `radius` bits away from the query's, in turn: 0 where there are no more. */
typedef struct ring {
    uint32_t differ, end;
    int more;
} ring;

static inline ring ring_start(unsigned radius, unsigned key_bits)
{
    return (ring){((uint32_t)1 << radius) - 1, (uint32_t)1 << key_bits, radius <= key_bits};
}

/* The next number with as many ones. */
static inline void ring_step(ring *r)
{
    if (r->differ == 0) {
        r->more = 0;
        return;
    }
    const uint32_t low = r->differ & -r->differ, carried = r->differ + low;
    r->differ = carried | ((carried ^ r->differ) >> 2) >> __builtin_ctz(low);
    r->more = r->differ < r->end;
}

/* Fetch the offsets of the next batch of keys. Returns how many there are. */
static inline unsigned next_keys(ring *r, const multi_index_table *table, uint32_t own, uint32_t *keys)
{
    unsigned count = 0;
    for (; r->more && count < BATCH; ring_step(r)) {
        keys[count] = own ^ r->differ;
        __builtin_prefetch(table->offsets + keys[count++]);
    }
    return count;
}

/* All entries of one table whose keys are v->radius bits away. Returns 0 where the budget ran out. */
TARGET static int probe(search *s, visit *v)
{
    const multi_index_table *table = v->table;
    uint32_t keys[BATCH], begin[BATCH], end[BATCH];
    ring r = ring_start(v->radius, table->key_bits);
    const uint32_t own = v->own_keys[v->at];
    for (unsigned count; (count = next_keys(&r, table, own, keys)) > 0;) {
        s->cost += (uint64_t)count * PROBE_COST;
        for (unsigned i = 0; i < count; i++) {
            begin[i] = table->offsets[keys[i]];
            end[i] = table->offsets[keys[i] + 1];
            s->cost += end[i] - begin[i];
            if (begin[i] == end[i])
                continue;
            const uint8_t *from = table->words ? table->words + (size_t)begin[i] * table->word_bytes
                                               : (const uint8_t *)(table->rows + begin[i]);
            const size_t bytes = (size_t)(end[i] - begin[i]) * (table->words ? table->word_bytes : 4);
            for (size_t at = 0; at < bytes && at < MAX_LINES * LINE; at += LINE)
                __builtin_prefetch(from + at);
            __builtin_prefetch(from + bytes - 1);
        }
        if (s->cost > s->task->budget)
            return 0;
        for (unsigned i = 0; i < count; i++)
            sift(s, v, begin[i], end[i]);
        settle(s, v);
    }
    return s->cost <= s->task->budget;
}

/* As probe, for a table whose keys are the codes: every entry is a hit, and of the nearest, rows rise within a key, so
 * that a key is left at the first that comes too late. */
TARGET static int walk(search *s, const visit *v)
{
    const multi_index_table *table = v->table;
    const uint64_t first = v->segment->first;
    for (ring r = ring_start(v->radius, table->key_bits); r.more; ring_step(&r)) {
        const uint32_t key = v->own_keys[v->at] ^ r.differ;
        uint32_t entry = table->offsets[key];
        for (; entry < table->offsets[key + 1]; entry++) {
            const uint64_t row = first + table->rows[entry];
            if (s->k && ((uint64_t)v->radius << HAMMING_INDEX_BITS | row) >= s->keys[0])
                break;
            take(s, v->radius, row);
        }
        s->cost += PROBE_COST + (entry - table->offsets[key]);
        if (s->cost > s->task->budget)
            return 0;
    }
    return 1;
}

/* Whether a word says all about its code, or what is known of the rest. */
TARGET static void look_at(search *s, visit *v, unsigned at)
{
    const multi_index_table *table = v->table = &v->segment->tables[at];
    const unsigned start = 8 * table->word_at, stop = start + 8 * table->word_bytes;
    const int apart = table->first_bit + table->key_bits <= start || stop <= table->first_bit;
    v->at = at;
    v->known = table->words && apart ? v->radius : 0;
    if (!table->words)
        return;
    v->word = v->mask = 0;
    memcpy(&v->word, s->query + table->word_at, table->word_bytes);
    memset(&v->mask, 0xFF, table->word_bytes);
}

/* All hits of one segment. Returns 0 where the budget ran out. */
TARGET static int search_segment(search *s, const multi_index_segment *segment)
{
    uint32_t own_keys[MULTI_INDEX_MAX_TABLES];
    visit v;
    v.segment = segment;
    v.own_keys = own_keys;
    v.codes = s->index->codes + segment->first * s->index->n_bytes;
    v.n_pending = 0;
    v.exact = segment->tables[0].words && segment->tables[0].word_bytes == s->index->n_bytes;
    const int whole = segment->tables[0].key_bits == s->index->n_bits;
    for (unsigned j = 0; j < segment->n_tables; j++)
        own_keys[j] = multi_index_key(&segment->tables[j], s->query);
    for (v.radius = 0; v.radius <= segment->tables[0].key_bits; v.radius++)
        for (unsigned j = 0; j < segment->n_tables; j++) {
            look_at(s, &v, j);
            if (!(whole ? walk(s, &v) : probe(s, &v)))
                return 0;
            if (segment->n_tables * v.radius + j >= s->limit)
                return 1;
        }
    return 1; /* table 0 has been read from end to end */
}

/* The codes that are in no table yet. */
TARGET static void search_tail(search *s)
{
    const multi_index *index = s->index;
    const multi_index_segment *last = index->segments + index->n_segments - 1;
    const uint64_t indexed = index->n_segments ? last->first + last->count : 0;
    uint64_t row = indexed > s->task->first ? indexed : s->task->first;
    for (; row < s->task->last; row += 8) {
        const uint32_t count = s->task->last - row < 8 ? (uint32_t)(s->task->last - row) : 8;
        const uint8_t *codes = index->codes + row * index->n_bytes;
        if (index->n_bytes == 8) {
            unsigned near = near8(codes, count, load_word(s->query), s->limit);
            for (; near; near &= near - 1) {
                const unsigned i = (unsigned)__builtin_ctz(near);
                take(s, (unsigned)popcount64(load_word(codes + 8 * i) ^ load_word(s->query)), row + i);
            }
        } else
            for (uint32_t i = 0; i < count; i++) {
                const unsigned distance = full_distance(codes + i * index->n_bytes, s->query, index->n_bytes);
                if (distance <= s->limit)
                    take(s, distance, row + i);
            }
    }
}

/* The tail first: it is cheap, and the nearer the hits, the less the segments have to look at. */
TARGET static int search_all(search *s)
{
    const multi_index *index = s->index;
    search_tail(s);
    for (size_t i = index->n_segments; i-- > 0;) {
        const multi_index_segment *segment = index->segments + i;
        if (segment->first < s->task->last && s->task->first < segment->first + segment->count)
            if (!search_segment(s, segment))
                return 0;
    }
    return 1;
}

TARGET static int search_knn(const multi_index *index, const uint8_t *query, const multi_index_task *task, size_t k,
                             uint64_t *keys)
{
    search s = {.index = index, .query = query, .task = task, .limit = NO_LIMIT, .keys = keys, .k = k};
    topk_clear(keys, k);
    if (!search_all(&s))
        return 0;
    topk_sort(keys, k);
    return 1;
}

TARGET static int search_range(const multi_index *index, const uint8_t *query, const multi_index_task *task,
                               unsigned radius, uint64_t *keys, size_t capacity, size_t *hits)
{
    search s = {.index = index, .query = query, .task = task, .limit = radius, .keys = keys, .capacity = capacity};
    const int complete = search_all(&s);
    *hits = s.hits;
    return complete;
}
