/* What is kept of sessions: copies in memory, and states in session files. */
#include "engine_parts.h"

#include "attention_options.h"
#include "store_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- snapshots ------------------------------------------------------------------------ */

struct cca_snapshot {
    int64_t pos;
    size_t bytes;
    char window[];
};

cca_status cca_session_snapshot(cca_snapshot **out, cca_session *s, cca_error *err) {
    const cca_cache *cache = cca_state_cache(s->state);
    size_t bytes = cca_store_cache_window_bytes(cache, s->pos);
    *out = NULL;
    cca_status status = cca_session_check_sound(s, err);
    if (status) return status;
    cca_snapshot *copy = malloc(sizeof *copy + bytes);
    if (!copy) return cca_fail(err, CCA_NO_MEMORY, "no memory for a copy of %zu bytes", bytes);
    copy->pos = s->pos;
    copy->bytes = bytes;
    status = cca_store_cache_window_get(copy->window, cache, s->pos, err);
    if (!status) {
        *out = copy;
    } else {
        free(copy);
    }
    return status;
}

void cca_snapshot_free(cca_snapshot *snapshot) {
    free(snapshot);
}

int64_t cca_snapshot_pos(const cca_snapshot *snapshot) {
    return snapshot->pos;
}

uint64_t cca_snapshot_bytes(const cca_snapshot *snapshot) {
    return snapshot->bytes;
}

cca_status cca_session_restore(cca_session *s, const cca_snapshot *snapshot, cca_error *err) {
    s->last_row = -1;
    s->torn = true;
    if (s->marked > snapshot->pos) s->marked = -1; /* other tokens may come before it */
    cca_status status =
        cca_store_cache_window_put(cca_state_cache(s->state), snapshot->window, snapshot->pos, err);
    if (!status) cca_session_settle(s, snapshot->pos);
    return status;
}

/* ---- stored sessions ------------------------------------------------------------------ */

enum { ROW_TYPE_FACT = 64 };

/* A line where rows behind the window have types of their own. */
static void row_type_fact(char out[ROW_TYPE_FACT], const cca_state_options *o) {
    out[0] = '\0';
    if (o->policy.recall == 0 || !o->rows_apart) return;
    snprintf(out, ROW_TYPE_FACT, "cache_type_r=%s/%s\n", cca_dtype_name(o->row_k_type),
             cca_dtype_name(o->row_v_type));
}

char *cca_session_facts(const cca_session *s) {
    const cca_engine_facts *f = &s->engine->facts;
    char model[CCA_GGUF_FINGERPRINT + 1], weights[CCA_GGUF_FINGERPRINT + 1];
    char attention[CCA_ATTENTION_FACTS], *text = NULL;
    char rows[ROW_TYPE_FACT], rope[ROPE_WORDS];
    cca_config_describe_rope(rope, sizeof rope, cca_model_config(s->engine->model),
                             s->options.ctx_size);
    cca_gguf_fingerprint(model, s->engine->file);
    cca_gguf_look(weights, s->engine->file);
    cca_attention_facts(attention, &s->options.policy);
    row_type_fact(rows, &s->options);
    int n = asprintf(
        &text,
        "model=%s\nweights=%s\nlayers=%lld\nheads=%lld\nkv_heads=%lld\nhead_dim=%lld\nrope=%s\n"
        "%scache_type_k=%s\ncache_type_v=%s\n%sprecision=%s\n",
        model, weights, (long long)f->n_layers, (long long)f->n_heads, (long long)f->n_kv_heads,
        (long long)f->head_dim, rope, attention, cca_dtype_name(s->options.k_type),
        cca_dtype_name(s->options.v_type), rows, s->engine->how.fp8 ? "fp8" : "weights");
    return n < 0 ? NULL : text;
}

/* Files of programs that went by the model's fingerprint alone say nothing of its weights. */
static bool is_unsaid(const char *name, int n_name, int n_value) {
    return n_value == 0 && n_name == 7 && memcmp(name, "weights", 7) == 0;
}

/* Whether all facts of a are the same in b; else *out is the first line that is not. */
static bool facts_agree(const char **out, const char *a, const char *b) {
    for (const char *line = a; *line; line += strcspn(line, "\n") + 1) {
        int n_name = (int)strcspn(line, "="), n_mine, n_other;
        const char *mine = cca_attention_fact(&n_mine, line, line, n_name);
        const char *other = cca_attention_fact(&n_other, b, line, n_name);
        *out = line;
        if (is_unsaid(line, n_name, n_other)) continue;
        if (n_mine != n_other || memcmp(mine, other, (size_t)n_mine) != 0) return false;
    }
    return true;
}

cca_status cca_session_check_facts(const cca_session *s, const cca_store *store, cca_error *err) {
    char *own = cca_session_facts(s);
    const char *other = cca_store_facts(store), *line;
    if (!own) return cca_fail(err, CCA_NO_MEMORY, "no memory for the facts of a session");
    cca_status status = CCA_OK;
    if (!facts_agree(&line, own, other) || !facts_agree(&line, other, own)) {
        int n_name = (int)strcspn(line, "="), n_own, n_other;
        const char *of_own = cca_attention_fact(&n_own, own, line, n_name);
        const char *of_other = cca_attention_fact(&n_other, other, line, n_name);
        status = cca_fail(
            err, CCA_BAD_MODEL, "%s: the session was made with %.*s=%.*s, this run has %.*s=%.*s",
            cca_store_path(store), n_name, line, n_other, of_other, n_name, line, n_own, of_own);
    }
    free(own);
    return status;
}

static cca_status needs_stored(const cca_session *s, cca_error *err) {
    if (s->options.spread) {
        return cca_fail(err, CCA_USAGE, "a session that ranks keep together is not stored");
    }
    if (s->options.stored) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "this session was not opened to be stored");
}

cca_status cca_session_save(cca_session *s, cca_store *store, const int32_t *ids, cca_error *err) {
    cca_status status = needs_stored(s, err);
    if (!status) status = cca_session_check_sound(s, err);
    size_t n = cca_store_n_points(store);
    if (status || (n > 0 && cca_store_point_at(store, n - 1).pos >= s->pos)) return status;
    return cca_store_cache_append(store, cca_state_cache(s->state), ids, s->pos, err);
}

cca_status cca_session_load(cca_session *s, cca_store *store, size_t point, cca_error *err) {
    cca_status status = needs_stored(s, err);
    int64_t pos = cca_store_point_at(store, point).pos;
    cca_session_reset(s);
    if (!status && point >= cca_store_n_points(store)) {
        status =
            cca_fail(err, CCA_USAGE, "%s: has no checkpoint %zu", cca_store_path(store), point);
    }
    if (!status) status = cca_session_check_facts(s, store, err);
    if (!status && pos > s->options.ctx_size) {
        status =
            cca_fail(err, CCA_NO_FIT, "%s: its checkpoint at %lld is beyond the context of %lld",
                     cca_store_path(store), (long long)pos, (long long)s->options.ctx_size);
    }
    if (!status) status = cca_store_cache_load(cca_state_cache(s->state), store, point, err);
    if (!status) cca_session_settle(s, pos);
    return status;
}
