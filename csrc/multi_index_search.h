/* The one search, compiled once per instruction set. The file that includes this has defined
 *
 *     TARGET               the attribute that names its instruction set
 *     popcount64(word)     the number of one bits
 *     near8(words, count, wanted, limit)
 *                          a bit for each of 1 to 8 neighbouring words at most limit bits away from wanted
 *
 * Nearly all the time goes into waiting for memory, so everything is asked for a step before it is needed: the offsets
 * of a batch of keys, then the words of their entries, then, of the few entries that pass, rows and codes. Several
 * queries take turns, a step each, so that what one of them asked for comes while the others work.
 */
#include "multi_index.h"
#include "topk.h"

#include <string.h>

#define GROUP 8           /* queries that take turns */
#define BATCH 128         /* keys under way at once, of one query */
#define PENDING 256       /* entries that passed, under way at once */
#define PROBE_COST 16     /* looking up a key, in comparisons of one entry with a word at hand */
#define SETTLE_COST 8     /* an entry that passed, the same */
#define LINE 64           /* bytes in a cache line */
#define MAX_LINES 8       /* the processor itself fetches what comes after so many neighbours */
#define NO_LIMIT (8 * HAMMING_MAX_BYTES)

/* The keys of a table that are so many bits away from the query's, in turn. */
typedef struct ring {
    uint32_t differ, end;
    int more;
} ring;

/* One query, and where it has got to: a segment, a radius, a table of the segment, a batch of keys. */
typedef struct search {
    const multi_index *index;
    const uint8_t *query;
    const multi_index_task *task;
    uint64_t cost;
    unsigned limit; /* a code farther away is no hit */
    uint64_t *keys; /* of the nearest, a heap of k that starts out full of UINT64_MAX; of a range, a list */
    size_t k, capacity, hits;

    enum { START, FIND, SIFT, SETTLE, DONE, OUT_OF_BUDGET, IDLE } step;
    size_t next_segment;
    const multi_index_segment *segment;
    uint32_t own_keys[MULTI_INDEX_MAX_TABLES]; /* the query's, one for each table */
    const uint8_t *codes;                      /* the segment's first */
    int exact;                                 /* words are whole codes */
    unsigned radius, at;
    const multi_index_table *table;
    uint64_t word, mask; /* the query's word, and which of its bits are kept */
    unsigned known;      /* bits that differ outside of the word */
    ring ring;
    unsigned n_batch;
    uint32_t batch[BATCH], begin[BATCH], end[BATCH];
    size_t n_pending;
    uint32_t pending[PENDING];
} search;

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

/* Was the code of a row of this segment met at a smaller radius, or at this one in a table before this? Its keys tell. */
TARGET static inline int met_before(const search *s, const uint8_t *code)
{
    for (unsigned j = 0; j < s->segment->n_tables; j++) {
        const uint32_t differ = multi_index_key(&s->segment->tables[j], code) ^ s->own_keys[j];
        if ((unsigned)popcount64(differ) + (j >= s->at) <= s->radius)
            return 1;
    }
    return 0;
}

/* One code after another: those in no table, and what is left of a segment where that costs less than its keys. */
TARGET static void scan(search *s, uint64_t row, uint64_t stop, int some_were_met)
{
    const multi_index *index = s->index;
    const size_t n_bytes = index->n_bytes;
    row = row > s->task->first ? row : s->task->first;
    stop = stop < s->task->last ? stop : s->task->last;
    for (uint32_t count; row < stop; row += count) {
        const uint8_t *codes = index->codes + row * n_bytes;
        count = stop - row < 8 ? (uint32_t)(stop - row) : 8;
        unsigned near = n_bytes == 8 ? near8(codes, count, load_word(s->query), s->limit) : (1u << count) - 1;
        for (; near; near &= near - 1) {
            const unsigned i = (unsigned)__builtin_ctz(near);
            const unsigned distance = full_distance(codes + i * n_bytes, s->query, n_bytes);
            if (distance <= s->limit && !(some_were_met && met_before(s, codes + i * n_bytes)))
                take(s, distance, row + i);
        }
    }
}

/* The entries that passed: their rows were fetched when they did, now their codes are. */
TARGET static void settle(search *s)
{
    const multi_index_table *table = s->table;
    const size_t n_bytes = s->index->n_bytes;
    s->cost += s->n_pending * SETTLE_COST;
    if (!s->exact)
        for (size_t i = 0; i < s->n_pending; i++) {
            const uint8_t *code = s->codes + table->rows[s->pending[i]] * n_bytes;
            __builtin_prefetch(code);
            __builtin_prefetch(code + n_bytes - 1);
        }
    for (size_t i = 0; i < s->n_pending; i++) {
        const size_t entry = s->pending[i], row = table->rows[entry];
        const uint8_t *code = s->exact ? table->words + entry * table->word_bytes : s->codes + row * n_bytes;
        const unsigned distance = full_distance(code, s->query, n_bytes);
        if (distance <= s->limit && !met_before(s, code))
            take(s, distance, s->segment->first + row);
    }
    s->n_pending = 0;
}

TARGET static inline void pass(search *s, uint32_t entry)
{
    if (s->n_pending == PENDING)
        settle(s);
    s->pending[s->n_pending++] = entry;
    __builtin_prefetch(s->table->rows + entry);
}

/* Which entries from begin to end - 1 may be near enough, by the part of their codes that is at hand. It stops where
 * so many are that the budget runs out. */
TARGET static inline void sift(search *s, uint32_t begin, uint32_t end)
{
    const multi_index_table *table = s->table;
    const uint64_t budget = s->task->budget;
    if (s->limit < s->known)
        return;
    const unsigned limit = s->limit - s->known;
    if (!table->words)
        for (uint32_t entry = begin; entry < end && s->cost <= budget; entry++)
            pass(s, entry);
    else if (table->word_bytes == 8)
        for (uint32_t count; begin < end && s->cost <= budget; begin += count) {
            count = end - begin < 8 ? end - begin : 8;
            unsigned near = near8(table->words + (size_t)begin * 8, count, s->word, limit);
            for (; near; near &= near - 1)
                pass(s, begin + (uint32_t)__builtin_ctz(near));
        }
    else
        for (uint32_t entry = begin; entry < end && s->cost <= budget; entry++) {
            const uint64_t word = load_word(table->words + (size_t)entry * table->word_bytes) & s->mask;
            if (popcount64(word ^ s->word) <= limit)
                pass(s, entry);
        }
}

static inline ring ring_start(unsigned radius, unsigned key_bits)
{
    return (ring){((uint32_t)1 << radius) - 1, (uint32_t)1 << key_bits, radius <= key_bits};
}

/* The next number with as many ones. */
static inline void ring_step(ring *r)
{
    const uint32_t low = r->differ & -r->differ, carried = r->differ + low;
    r->more = r->differ != 0 && carried < r->end;
    if (r->more)
        r->differ = carried | ((carried ^ r->differ) >> 2) >> __builtin_ctz(low);
}

/* All entries of one table whose keys are s->radius bits away, for a table whose keys are the codes: every entry is a
 * hit, and of the nearest, rows rise within a key, so that a key is left at the first that comes too late. */
TARGET static void walk(search *s)
{
    const multi_index_table *table = s->table;
    for (; s->ring.more && s->cost <= s->task->budget; ring_step(&s->ring)) {
        const uint32_t key = s->own_keys[0] ^ s->ring.differ, end = table->offsets[key + 1];
        uint32_t entry = table->offsets[key];
        s->cost += PROBE_COST;
        for (; entry < end; entry++, s->cost++) {
            const uint64_t row = s->segment->first + table->rows[entry];
            if (s->k && ((uint64_t)s->radius << HAMMING_INDEX_BITS | row) >= s->keys[0])
                break;
            take(s, s->radius, row);
        }
    }
}

/* Turn to a table: whether a word says all about its code, or what is known of the rest. */
static void look_at(search *s, unsigned at)
{
    const multi_index_table *table = s->table = &s->segment->tables[at];
    const unsigned start = 8 * table->word_at, stop = start + 8 * table->word_bytes;
    const int apart = table->first_bit + table->key_bits <= start || stop <= table->first_bit;
    s->at = at;
    s->ring = ring_start(s->radius, table->key_bits);
    s->known = table->words && apart ? s->radius : 0;
    if (!table->words)
        return;
    s->word = s->mask = 0;
    memcpy(&s->word, s->query + table->word_at, table->word_bytes);
    memset(&s->mask, 0xFF, table->word_bytes);
}

/* Turn to the next segment that has rows to look at. Where there is none, look at the codes after the last of them, and
 * return 0. */
TARGET static int next_segment(search *s)
{
    const multi_index *index = s->index;
    uint64_t indexed = 0;
    while (s->next_segment < index->n_segments) {
        const multi_index_segment *segment = s->segment = index->segments + s->next_segment++;
        if (segment->first >= s->task->last || s->task->first >= segment->first + segment->count)
            continue;
        for (unsigned j = 0; j < segment->n_tables; j++)
            s->own_keys[j] = multi_index_key(&segment->tables[j], s->query);
        s->codes = index->codes + segment->first * index->n_bytes;
        s->exact = segment->tables[0].words && segment->tables[0].word_bytes == index->n_bytes;
        s->radius = 0;
        look_at(s, 0);
        return 1;
    }
    if (index->n_segments)
        indexed = index->segments[index->n_segments - 1].first + index->segments[index->n_segments - 1].count;
    scan(s, indexed, index->n_codes, 0);
    return 0;
}

/* Whether the keys at this radius, with the entries that they have on average, cost more than all codes of the segment;
 * then those are looked at, one after another, unless that is more than the budget. */
TARGET static int scan_instead(search *s)
{
    const multi_index_segment *segment = s->segment;
    const unsigned key_bits = s->table->key_bits;
    const uint64_t all = segment->count * ((s->index->n_bytes + 7) / 8);
    uint64_t keys = 1;
    for (unsigned i = 0; i < s->radius; i++)
        keys = keys * (key_bits - i) / (i + 1);
    const uint64_t cost = keys * (PROBE_COST + (segment->count >> key_bits));
    if (s->cost + (cost < all ? cost : all) > s->task->budget)
        s->step = OUT_OF_BUDGET;
    else if (cost > all) {
        scan(s, segment->first, segment->first + segment->count, 1);
        s->cost += all;
        return 1;
    }
    return 0;
}

/* Turn to the next table, or to the next radius, or, where all hits of this segment have been met, to the next one. A
 * radius of all bits of a key has been everywhere. Returns 0 where there is none. */
static int next_table(search *s)
{
    const unsigned n_tables = s->segment->n_tables;
    if (n_tables * s->radius + s->at >= s->limit || s->radius == s->table->key_bits)
        return next_segment(s);
    if (s->at + 1 == n_tables)
        s->radius++;
    look_at(s, s->at + 1 == n_tables ? 0 : s->at + 1);
    return 1;
}

/* Ask for the offsets of the next batch of keys. */
TARGET static void ask(search *s)
{
    for (;;) {
        if (s->table->key_bits == s->index->n_bits)
            walk(s);
        s->n_batch = 0;
        for (; s->ring.more && s->n_batch < BATCH; ring_step(&s->ring)) {
            const uint32_t key = s->batch[s->n_batch++] = s->own_keys[s->at] ^ s->ring.differ;
            __builtin_prefetch(s->table->offsets + key);
        }
        s->cost += (uint64_t)s->n_batch * PROBE_COST;
        s->step = s->cost > s->task->budget ? OUT_OF_BUDGET : FIND;
        if (s->n_batch || s->step == OUT_OF_BUDGET)
            return;
        int more = next_table(s);
        while (more && s->step == FIND && scan_instead(s))
            more = next_segment(s);
        if (!more)
            s->step = DONE;
        if (s->step != FIND)
            return;
    }
}

/* Ask for the words of the entries, or where there are none for their rows. */
TARGET static void find(search *s)
{
    const multi_index_table *table = s->table;
    const uint8_t *from = table->words ? table->words : (const uint8_t *)table->rows;
    const size_t width = table->words ? table->word_bytes : sizeof *table->rows;
    for (unsigned i = 0; i < s->n_batch; i++) {
        const size_t begin = s->begin[i] = table->offsets[s->batch[i]];
        const size_t end = s->end[i] = table->offsets[s->batch[i] + 1];
        s->cost += end - begin;
        __builtin_prefetch(from + begin * width);
        __builtin_prefetch(from + end * width - 1);
        for (size_t at = begin * width + LINE; at + LINE < end * width && at < begin * width + MAX_LINES * LINE; at += LINE)
            __builtin_prefetch(from + at);
    }
    s->step = s->cost > s->task->budget ? OUT_OF_BUDGET : SIFT;
}

/* One step; each ends where it has asked for what the next one needs. */
TARGET static void take_step(search *s)
{
    switch (s->step) {
    case START: /* the greatest segment first: the nearer the hits, the less there is to look at in the others */
        s->next_segment = 0;
        s->step = DONE;
        if (next_segment(s))
            ask(s);
        break;
    case FIND:
        find(s);
        break;
    case SIFT:
        for (unsigned i = 0; i < s->n_batch; i++)
            sift(s, s->begin[i], s->end[i]);
        if (s->n_pending)
            s->step = SETTLE;
        else
            ask(s);
        break;
    case SETTLE:
        settle(s);
        ask(s);
        break;
    default:
        break;
    }
}

/* A search for one query; the caller says where its hits go. */
static inline void begin(search *s, const multi_index *index, const uint8_t *query, const multi_index_task *task)
{
    s->index = index;
    s->query = query;
    s->task = task;
    s->cost = s->k = s->capacity = s->hits = s->n_pending = 0;
    s->limit = NO_LIMIT;
    s->step = START;
}

TARGET static void search_knn(const multi_index *index, const uint8_t *queries, size_t n_queries,
                              const multi_index_task *task, size_t k, uint64_t *keys)
{
    search group[GROUP];
    const size_t size = n_queries < GROUP ? n_queries : GROUP;
    topk_clear(keys, n_queries * k);
    for (size_t i = 0; i < size; i++)
        group[i].step = IDLE;
    for (size_t asked = 0, answered = 0; answered < n_queries;)
        for (size_t i = 0; i < size; i++) {
            search *s = &group[i];
            if (s->step == IDLE && asked < n_queries) {
                begin(s, index, queries + asked * index->n_bytes, task);
                s->k = k;
                s->keys = keys + asked++ * k;
            } else if (s->step < DONE)
                take_step(s);
            else if (s->step != IDLE) {
                topk_sort(s->keys, k);
                if (s->step == OUT_OF_BUDGET)
                    s->keys[0] = UINT64_MAX;
                s->step = IDLE;
                answered++;
            }
        }
}

TARGET static int search_range(const multi_index *index, const uint8_t *query, const multi_index_task *task,
                               unsigned radius, uint64_t *keys, size_t capacity, size_t *hits)
{
    search s;
    begin(&s, index, query, task);
    s.limit = radius;
    s.keys = keys;
    s.capacity = capacity;
    while (s.step < DONE)
        take_step(&s);
    *hits = s.hits;
    return s.step == DONE;
}
