/* Session files: the index, all segments, each checkpoint into a small cache, and the file opened
 * to be written, its first checkpoint dropped. Where the last byte is odd the checksums are mended
 * first, as one would who damages a file on purpose. */
#include "fuzz.h"

#include "store_cache.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { ALIGN = 64, CTX = 64, FACTS_AT = 16, SEGMENT_CRC_AT = 32, HEADER_CRC_AT = 36 };

static volatile int64_t sink;

static uint64_t number(const uint8_t *at, size_t bytes) {
    uint64_t n = 0;
    memcpy(&n, at, bytes); /* little-endian, as this machine */
    return n;
}

static void mend(uint8_t *file, size_t size, size_t at, size_t from, uint64_t bytes) {
    if (from > size || bytes > size - from) return;
    uint32_t crc = (uint32_t)crc32_z(0, file + from, bytes);
    memcpy(file + at, &crc, sizeof crc);
}

static void mend_all(uint8_t *file, size_t size) {
    if (size < FACTS_AT) return;
    uint64_t facts = number(file + 8, 4);
    mend(file, size, 12, FACTS_AT, facts);
    for (size_t at = (FACTS_AT + facts + ALIGN - 1) / ALIGN * ALIGN; at + ALIGN <= size;) {
        uint64_t bytes = number(file + at + 24, 8);
        mend(file, size, at + SEGMENT_CRC_AT, at + ALIGN, bytes);
        mend(file, size, at + HEADER_CRC_AT, at, HEADER_CRC_AT);
        if (bytes > size) return;
        at = (at + ALIGN + bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
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
    if (size == 0) return;
    uint8_t *file = malloc(size);
    if (!file) return;
    memcpy(file, data, size);
    if (file[size - 1] & 1) mend_all(file, size);
    const char *path = fuzz_file(file, size);
    free(file);
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
