/* Session files: the index, all segments, each checkpoint into a small cache, and the file opened
 * to be written, its first checkpoint dropped. mutate_session.c mends the checksums. */
#include "fuzz.h"

#include "store_cache.h"

#include <string.h>
#include <unistd.h>

enum { CTX = 64 };

static volatile int64_t sink;

/* There is no writer beside this reader whose next write damage would wait for. */
int usleep(useconds_t microseconds) {
    (void)microseconds;
    return 0;
}

/* One layer, two heads of four values that share keys, g = 4, s = 8. */
static cca_cache *small_cache(void) {
    static cca_cache *cache;
    cca_error err;
    cca_backend *backend;
    cca_policy policy;
    const cca_backend_options options = {.n_threads = 1};
    const cca_cache_shape shape = {.n_layers = 1,
                                   .n_heads = 2,
                                   .n_kv_heads = 1,
                                   .head_dim = 4,
                                   .ctx_size = CTX,
                                   .chunk_size = 8,
                                   .k_type = CCA_BF16,
                                   .v_type = CCA_BF16,
                                   .stored = true};
    const cca_policy_options rule = {.group_size = 4, .window_size = 8};
    if (cache) return cache;
    fuzz_check(cca_policy_make(&policy, &rule, &err) == CCA_OK &&
                   cca_backend_cpu(&backend, &options, &err) == CCA_OK &&
                   cca_cache_new(&cache, backend, &shape, &policy, &err) == CCA_OK,
               "no cache");
    return cache;
}

static void read_segments(cca_store *store) {
    uint8_t piece[1000];
    cca_error err;
    for (size_t i = 0; i < cca_store_n_segments(store); i++) {
        uint64_t left = cca_store_segment_at(store, i).bytes;
        if (cca_store_read_begin(store, i, &err) != CCA_OK) continue;
        for (size_t n; left > 0; left -= n) {
            n = left < sizeof piece ? left : sizeof piece;
            if (cca_store_read(store, piece, n, &err) != CCA_OK) break;
        }
    }
}

static void load_points(cca_store *store) {
    cca_error err;
    size_t n_points = cca_store_n_points(store);
    for (size_t i = 0; i < n_points && i < 8; i++) {
        cca_store_point point = cca_store_point_at(store, i);
        fuzz_check(point.pos >= 0 && point.n_segments <= cca_store_n_segments(store),
                   "a checkpoint outside the file");
        if (point.pos <= CTX) (void)cca_store_cache_load(small_cache(), store, i, &err);
    }
}

void fuzz_one(const uint8_t *data, size_t size) {
    cca_error err;
    cca_store *store;
    int64_t n;
    const char *path = fuzz_file(data, size);
    if (cca_store_open(&store, path, false, &err) == CCA_OK) {
        const int32_t *tokens = cca_store_tokens(store, &n);
        if (n > 0) sink = (int64_t)tokens[0] + tokens[n - 1];
        fuzz_check(strlen(cca_store_facts(store)) <= size, "facts outside the file");
        read_segments(store);
        load_points(store);
        cca_store_close(store);
    }
    if (cca_store_open(&store, path, true, &err) == CCA_OK) {
        if (cca_store_n_points(store) > 0) (void)cca_store_drop(store, 0, &err);
        (void)cca_store_cache_append(store, small_cache(), (const int32_t[CTX]){0}, CTX, &err);
        cca_store_close(store);
    }
}
