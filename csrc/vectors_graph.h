/* The one walk over a graph, compiled once per instruction set. The file that includes this has included
 * vectors_scan.h, with what that wants.
 *
 * Nearly all the time goes into waiting for memory: a node's links and points are asked for before they are needed.
 */
#define EXPANDED 1u /* lowest bit of an entry of the pool */

/* Distance, node and whether it was expanded in one number; their order is that of distances, then of nodes. */
static inline uint64_t make_entry(float distance, uint32_t node)
{
    return make_key(distance, (uint64_t)node << 1);
}

static inline uint32_t node_of(uint64_t entry)
{
    return (uint32_t)entry >> 1;
}

static inline void ask_for(const void *memory, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 64)
        __builtin_prefetch((const char *)memory + at);
}

/* Down the upper levels, to the nearest node of each that links lead to. */
TARGET static uint32_t descend(const vectors_graph *graph, const float *query)
{
    uint32_t nearest = graph->entry;
    float least = rough_sum(query, graph->points + (size_t)nearest * graph->width, graph->width);
    for (size_t level = graph->top; level-- > 0;)
        for (uint32_t before = UINT32_MAX; before != nearest;) {
            const uint32_t *links = graph->upper + (graph->upper_at[nearest] + level) * graph->n_upper;
            before = nearest;
            for (size_t i = 0; i < graph->n_upper; i++)
                ask_for(graph->points + (size_t)links[i] * graph->width, graph->width * sizeof(float));
            for (size_t i = 0; i < graph->n_upper; i++) {
                const float distance = rough_sum(query, graph->points + (size_t)links[i] * graph->width, graph->width);
                if (distance < least) {
                    least = distance;
                    nearest = links[i];
                }
            }
        }
    return nearest;
}

/* Put an entry in its place among the sorted ones; returns the place. */
static inline size_t insert(uint64_t *pool, size_t size, uint64_t entry)
{
    size_t low = 0, high = size;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (pool[middle] < entry)
            low = middle + 1;
        else
            high = middle;
    }
    memmove(pool + low + 1, pool + low, (size - low) * sizeof *pool);
    pool[low] = entry;
    return low;
}

/* The best ef nodes, or fewer, that a walk along the links meets: sorted in pool[ef + 1]; returns how many. */
TARGET static size_t walk(const vectors_graph *graph, const float *query, size_t ef, uint64_t *pool, uint64_t *seen)
{
    const size_t width = graph->width;
    uint32_t fresh[VECTORS_MAX_LINKS];
    memset(seen, 0, (graph->n_nodes / 64 + 1) * sizeof *seen);
    const uint32_t start = descend(graph, query);
    seen[start / 64] |= 1ull << start % 64;
    pool[0] = make_entry(rough_sum(query, graph->points + (size_t)start * width, width), start);
    size_t size = 1, next = 0;
    while (next < size) {
        if (pool[next] & EXPANDED) {
            next++;
            continue;
        }
        const uint32_t *links = graph->links + (size_t)node_of(pool[next]) * graph->n_links;
        pool[next] |= EXPANDED;
        size_t count = 0;
        for (size_t i = 0; i < graph->n_links; i++) {
            const uint32_t node = links[i];
            const uint64_t bit = 1ull << node % 64;
            fresh[count] = node;
            count += !(seen[node / 64] & bit);
            seen[node / 64] |= bit;
        }
        for (size_t i = 0; i < count; i++)
            ask_for(graph->points + (size_t)fresh[i] * width, width * sizeof(float));
        for (size_t i = 0; i < count; i++) {
            const uint64_t entry = make_entry(rough_sum(query, graph->points + (size_t)fresh[i] * width, width), fresh[i]);
            if (size == ef && entry >= pool[size - 1])
                continue;
            ask_for(graph->links + (size_t)fresh[i] * graph->n_links, graph->n_links * sizeof(uint32_t));
            const size_t place = insert(pool, size, entry);
            size += size < ef;
            next = place < next ? place : next;
        }
    }
    return size;
}

/* The query as the graph sees it: a unit vector for cosine, with zeros to the end. Returns whether float32 sums can tell
 * its neighbours apart. */
TARGET static int as_point(vectors_metric metric, const float *query, double scale, size_t dim, float *point,
                           size_t width)
{
    float greatest = 0;
    for (size_t i = 0; i < dim; i++) {
        point[i] = (float)(query[i] * scale);
        greatest = fabsf(point[i]) > greatest ? fabsf(point[i]) : greatest;
    }
    memset(point + dim, 0, (width - dim) * sizeof *point);
    return greatest > 0 && (metric == VECTORS_COSINE || (greatest > VECTORS_LEAST && greatest < VECTORS_GREATEST));
}

/* Offer the nodes of a pool to a heap, at their exact distances. */
TARGET static void offer_nodes(const vectors_graph *graph, vectors_metric metric, const float *query, double scale,
                               const float *rows, size_t dim, const uint64_t *pool, size_t n, uint64_t *heap, size_t k)
{
    for (size_t i = 0; metric == VECTORS_COSINE && i < n; i++)
        ask_for(rows + graph->rows[node_of(pool[i])] * dim, dim * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        const size_t node = node_of(pool[i]), row = graph->rows[node];
        const float *point = graph->points + node * graph->width; /* for l2 the row itself, and at hand */
        const float *vector = rows + row * dim;
        const float distance = metric == VECTORS_L2 ? l2(query, point, dim)
                                                    : cosine(query, scale, vector, unit_scale(vector, dim), dim);
        topk_offer(heap, k, make_key(distance, row));
    }
}

TARGET static size_t graph_search(const vectors_graph *graph, vectors_metric metric, const float *queries,
                                  size_t n_queries, const float *rows, size_t dim, const int64_t *extra,
                                  size_t n_extra, size_t k, const vectors_scratch *scratch, uint64_t *keys)
{
    size_t failed = 0;
    scan_heaps(metric, queries, n_queries, rows, dim, extra, 0, n_extra, k, keys);
    for (size_t q = 0; q < n_queries; q++) {
        const float *query = queries + q * dim;
        const double scale = metric == VECTORS_COSINE ? unit_scale(query, dim) : 1;
        uint64_t *heap = keys + q * k;
        size_t met = 0;
        if (as_point(metric, query, scale, dim, scratch->point, graph->width))
            met = walk(graph, scratch->point, scratch->ef, scratch->pool, scratch->seen);
        offer_nodes(graph, metric, query, scale, rows, dim, scratch->pool, met, heap, k);
        topk_sort(heap, k);
        if (met < k) {
            heap[0] = UINT64_MAX;
            failed++;
        }
    }
    return failed;
}
