#include "tests/crash/reader.h"

#include "base/hash.h"
#include "engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WHY = 1024, CTX = 1024, GROUP = 4, WINDOW = 8, RECALL = 8, MOST_SEEN = 4096 };

static struct {
    cca_engine *engine;
    cca_session *stored, *fresh;
    uint64_t seen[MOST_SEEN]; /* checkpoints whose logits were compared */
    size_t n_seen;
} of;

bool reader_open(const char *model, const char *attn, cca_error *err) {
    cca_engine_options one = {.device = "cpu", .n_threads = 1}; /* this process forks */
    cca_session_options o = cca_session_defaults();
    o.ctx_size = CTX;
    o.attn = attn;
    o.group_size = GROUP;
    o.window_size = WINDOW;
    if (strcmp(attn, "recall") == 0) {
        o.recall = RECALL;
        o.recall_tile = 1;
    }
    cca_status status = cca_engine_open(&of.engine, model, &one, err);
    if (!status) status = cca_session_new(&of.fresh, of.engine, &o, err);
    o.stored = true;
    if (!status) status = cca_session_new(&of.stored, of.engine, &o, err);
    return !status;
}

void reader_close(void) {
    cca_session_free(of.stored);
    cca_session_free(of.fresh);
    cca_engine_close(of.engine);
}

/* ---- versions ---- */

static void add(version *v, uint64_t hash) {
    v->hashes = realloc(v->hashes, (v->n + 1) * sizeof *v->hashes);
    if (!v->hashes) abort();
    v->hashes[v->n++] = hash;
}

bool version_has(const version *v, uint64_t hash) {
    for (size_t i = 0; i < v->n; i++) {
        if (v->hashes[i] == hash) return true;
    }
    return false;
}

void version_free(version *v) {
    free(v->hashes);
    *v = (version){0};
}

/* ---- sessions ---- */

/* The hash goes on with a segment's bytes. */
static bool hash_segment(uint64_t *hash, cca_store *store, size_t index, char *why) {
    char piece[4096];
    cca_error err;
    cca_store_segment s = cca_store_segment_at(store, index);
    cca_status status = cca_store_read_begin(store, index, &err);
    for (uint64_t left = s.bytes; left > 0 && !status;) {
        size_t n = left < sizeof piece ? (size_t)left : sizeof piece;
        status = cca_store_read(store, piece, n, &err);
        *hash = cca_hash_more(*hash, piece, n);
        left -= n;
    }
    if (status) snprintf(why, WHY, "%s", err.text);
    return !status;
}

/* Of ids, rows and notes before it and its own window. */
static bool hash_point(uint64_t *out, cca_store *store, cca_store_point p, char *why) {
    int64_t n;
    const int32_t *ids = cca_store_tokens(store, &n);
    const char *facts = cca_store_facts(store);
    *out = cca_hash(facts, strlen(facts) + 1);
    *out = cca_hash_more(*out, ids, (size_t)p.pos * sizeof *ids);
    for (size_t i = 0; i < p.n_segments; i++) {
        cca_store_segment s = cca_store_segment_at(store, i);
        bool window = s.kind == CCA_STORE_WINDOW || s.kind == CCA_STORE_DROPPED;
        if (window && i + 1 < p.n_segments) continue;
        *out = cca_hash_more(*out, &s.first, sizeof s.first);
        if (!hash_segment(out, store, i, why)) return false;
    }
    return true;
}

static bool close_enough(const float *a, const float *b, int64_t n) {
    float most = 0, apart = 0;
    for (int64_t i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(a[i]));
        apart = fmaxf(apart, fabsf(a[i] - b[i]));
    }
    return apart <= 0.02F * most; /* chunks are cut otherwise, and rows are bf16 */
}

/* Whether a token behind the checkpoint has the logits that it has behind the same ids. */
static bool same_logits(cca_store *store, int64_t pos, char *why) {
    int64_t n, vocab = cca_engine_info(of.engine)->vocab_size;
    const int32_t *ids = cca_store_tokens(store, &n), next = 1;
    cca_error err;
    cca_session_reset(of.fresh);
    cca_status status = cca_session_eval(of.fresh, ids, pos, NULL, &err);
    if (!status) status = cca_session_eval(of.fresh, &next, 1, NULL, &err);
    if (!status) status = cca_session_eval(of.stored, &next, 1, NULL, &err);
    const float *a = status ? NULL : cca_session_logits(of.fresh, &err);
    const float *b = a ? cca_session_logits(of.stored, &err) : NULL;
    if (!b) snprintf(why, WHY, "%s", err.text);
    if (b && close_enough(a, b, vocab)) return true;
    if (b) snprintf(why, WHY, "other logits behind position %lld", (long long)pos);
    return false;
}

static bool load_last(const version *v, cca_store *store, char *why) {
    cca_error err;
    size_t last = cca_store_n_points(store) - 1;
    uint64_t hash = v->hashes[v->n - 1];
    if (cca_session_load(of.stored, store, last, &err)) {
        snprintf(why, WHY, "%s", err.text);
        return false;
    }
    for (size_t i = 0; i < of.n_seen; i++) {
        if (of.seen[i] == hash) return true;
    }
    if (of.n_seen < MOST_SEEN) of.seen[of.n_seen++] = hash;
    return same_logits(store, v->last, why);
}

static bool read_session(version *v, const char *path, char *why) {
    cca_error err;
    cca_store *store;
    if (cca_store_open(&store, path, false, &err)) {
        snprintf(why, WHY, "%s", err.text);
        v->refused = true;
        return err.status == CCA_BAD_MODEL && strstr(err.text, path);
    }
    bool right = true;
    size_t n = cca_store_n_points(store);
    for (size_t i = 0; i < n && right; i++) {
        cca_store_point p = cca_store_point_at(store, i);
        uint64_t hash;
        right = hash_point(&hash, store, p, why);
        if (!right) break;
        add(v, hash);
        v->last = p.pos;
    }
    if (right && n > 0) right = load_last(v, store, why);
    cca_store_close(store);
    return right;
}

/* ---- other files ---- */

static bool read_bytes(version *v, const char *path, char *why) {
    char piece[4096];
    uint64_t hash = cca_hash("", 0);
    FILE *file = fopen(path, "rb");
    if (!file) snprintf(why, WHY, "%s: cannot open", path);
    if (!file) return false;
    for (size_t n; (n = fread(piece, 1, sizeof piece, file)) > 0;) {
        hash = cca_hash_more(hash, piece, n);
    }
    fclose(file);
    add(v, hash);
    v->last = 0;
    return true;
}

bool reader_read(version *out, const char *path, char why[WHY]) {
    size_t n = strlen(path);
    *out = (version){.last = -1};
    why[0] = '\0';
    if (access(path, F_OK) != 0) return true;
    out->there = true;
    if (n > 5 && strcmp(path + n - 5, ".ccas") == 0) return read_session(out, path, why);
    return read_bytes(out, path, why);
}
