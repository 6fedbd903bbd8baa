#include "attention_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cca_session_options cca_session_defaults(void) {
    return (cca_session_options){.attn = "auto",
                                 .sinks = CCA_AUTO,
                                 .recall = CCA_AUTO,
                                 .recall_tile = CCA_AUTO,
                                 .k_type = "bf16",
                                 .v_type = "bf16"};
}

/* By cca_attn; sinks are given with their number. */
static const char *const attn_names[] = {"cca", "full", "mean", "max", "window", "sinks"};

static cca_status parse_attn(cca_attn *out, int64_t *n_sinks, const char *text, cca_error *err) {
    *n_sinks = 0;
    *out = CCA_ATTN_CCA;
    if (strcmp(text, "auto") == 0 || strcmp(text, "recall") == 0) return CCA_OK;
    for (int i = 0; i < CCA_ATTN_SINKS; i++) {
        if (strcmp(text, attn_names[i]) != 0) continue;
        *out = (cca_attn)i;
        return CCA_OK;
    }
    if (strncmp(text, "sinks:", 6) == 0) {
        char *end;
        long long n = strtoll(text + 6, &end, 10);
        if (end != text + 6 && *end == '\0' && n > 0 && n < INT32_MAX) {
            *out = CCA_ATTN_SINKS;
            *n_sinks = n;
            return CCA_OK;
        }
    }
    return cca_fail(err, CCA_USAGE,
                    "attention '%s': use auto, cca, recall, full, mean, max, window or sinks:N",
                    text);
}

/* n rounded up to groups. */
static int64_t whole_groups(int64_t n, int64_t group_size) {
    return (n + group_size - 1) / group_size * group_size;
}

/* Sinks, recall and cores as the options, the model file and the weights' training say. */
static cca_status resolve_recall(cca_policy_options *p, const cca_config *c,
                                 const cca_session_options *o, cca_error *err) {
    enum { RECALL = 2048 };
    int64_t g = p->group_size;
    bool is_auto = strcmp(o->attn, "auto") == 0, recalls = strcmp(o->attn, "recall") == 0;
    if (p->attn != CCA_ATTN_CCA) {
        bool given = o->sinks > 0 || o->recall > 0 || o->recall_tile > 0 || o->cores;
        if (!given) return CCA_OK;
        return cca_fail(err, CCA_USAGE, "attention %s has no sinks, recall or cores to be set",
                        o->attn);
    }
    if (!is_auto && !recalls && o->recall > 0) {
        return cca_fail(err, CCA_USAGE, "attention %s recalls nothing; use recall", o->attn);
    }
    if (is_auto) recalls = o->recall > 0 || (c->says_recall ? c->recall > 0 : !c->tuned);
    int64_t sinks = c->says_sinks ? c->n_sinks : g, recall = RECALL;
    if (c->says_recall && c->recall > 0) recall = c->recall;
    if (recalls) p->recall = o->recall == CCA_AUTO ? whole_groups(recall, g) : o->recall;
    p->n_sinks = o->sinks == CCA_AUTO ? whole_groups(sinks, g) : o->sinks;
    bool cores = c->says_cores ? c->cores : c->tuned; /* to others they add nothing */
    cores = cores || p->recall == 0;
    p->no_cores = o->cores == CCA_CORES_AUTO ? !cores : o->cores == CCA_CORES_NO;
    if (p->recall == 0) return CCA_OK;
    bool own = o->recall_tile != CCA_AUTO;
    p->tile = own ? o->recall_tile : cca_policy_tile(c->n_heads, c->n_kv_heads);
    return CCA_OK;
}

cca_status cca_attention_resolve(cca_policy *out, const cca_config *c, const cca_session_options *o,
                                 cca_error *err) {
    int64_t g = c->group_size ? c->group_size : CCA_DEFAULT_GROUP;
    int64_t s = c->window_size ? c->window_size : CCA_DEFAULT_WINDOW;
    cca_policy_options p = {.group_size = o->group_size ? o->group_size : g,
                            .window_size = o->window_size ? o->window_size : s};
    cca_status status = parse_attn(&p.attn, &p.n_sinks, o->attn, err);
    if (!status) status = resolve_recall(&p, c, o, err);
    return status ? status : cca_policy_make(out, &p, err);
}

const char *cca_attention_name(const cca_policy *p) {
    return p->recall > 0 ? "recall" : attn_names[p->attn];
}

/* ---- the cache's types ----------------------------------------------------------------- */

static cca_status parse_type(cca_dtype *out, const char *what, const char *text, cca_error *err) {
    if (cca_dtype_parse(out, text) && cca_dtype_find(*out)->caches) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "type of cached %s '%s': use f32, f16, bf16 or q8_0", what,
                    text);
}

static bool parse_row_type(cca_dtype *out, const char *text) {
    if (!cca_dtype_parse(out, text)) return false;
    const cca_dtype_facts *t = cca_dtype_find(*out);
    return t->runs && t->encode && !t->is_sought;
}

/* "KEYS/VALUES", or one type for both. */
static bool parse_row_types(cca_cache_types *out, const char *text) {
    char keys[16];
    const char *slash = strchr(text, '/');
    snprintf(keys, sizeof keys, "%.*s", (int)strcspn(text, "/"), text);
    return parse_row_type(&out->row_k, keys) &&
           parse_row_type(&out->row_v, slash ? slash + 1 : keys);
}

cca_status cca_cache_types_parse(cca_cache_types *out, const cca_session_options *o,
                                 cca_error *err) {
    cca_status status = parse_type(&out->k, "keys", o->k_type, err);
    if (!status) status = parse_type(&out->v, "values", o->v_type, err);
    if (status) return status;
    out->row_k = out->k;
    out->row_v = out->v;
    if (!o->row_type || parse_row_types(out, o->row_type)) return CCA_OK;
    return cca_fail(err, CCA_USAGE,
                    "type of rows behind the window '%s': use f32, f16, bf16, q8_0 or q4_0, for "
                    "keys and values or apart as q8_0/q4_0",
                    o->row_type);
}

/* ---- in stored sessions ---------------------------------------------------------------- */

void cca_attention_facts(char out[CCA_ATTENTION_FACTS], const cca_policy *p) {
    bool full = p->attn == CCA_ATTN_FULL;
    int n = snprintf(out, CCA_ATTENTION_FACTS,
                     "attention=%s\ngroup_size=%lld\nwindow_size=%lld\nsinks=%lld\n",
                     attn_names[p->attn], (long long)(full ? 0 : p->rule.group_size),
                     (long long)(full ? 0 : p->rule.window_size), (long long)p->rule.n_sinks);
    if (p->attn != CCA_ATTN_CCA) return;
    snprintf(out + n, (size_t)(CCA_ATTENTION_FACTS - n),
             "recall=%lld\nrecall_tile=%lld\ncores=%s\n", (long long)p->recall, (long long)p->tile,
             p->rule.cores ? "yes" : "no");
}

const char *cca_attention_fact(int *size, const char *facts, const char *name, int n_name) {
    static const struct {
        const char *name, *value;
    } before[] = {{"recall", "0"},
                  {"recall_tile", "1"},
                  {"cores", "yes"},
                  {"cache_type_r", "the window's"},
                  {"precision", "weights"}};
    for (const char *line = facts; *line;) {
        int n = (int)strcspn(line, "\n");
        if (n > n_name && line[n_name] == '=' && memcmp(line, name, (size_t)n_name) == 0) {
            *size = n - n_name - 1;
            return line + n_name + 1;
        }
        line += n + (line[n] == '\n');
    }
    *size = 0;
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        bool same = strlen(before[i].name) == (size_t)n_name &&
                    memcmp(before[i].name, name, (size_t)n_name) == 0;
        if (!same) continue;
        *size = (int)strlen(before[i].value);
        return before[i].value;
    }
    return "";
}

static bool fact_is(const char *facts, const char *name, const char *value) {
    int size;
    const char *found = cca_attention_fact(&size, facts, name, (int)strlen(name));
    return (size_t)size == strlen(value) && memcmp(found, value, strlen(value)) == 0;
}

static int64_t fact_number(const char *facts, const char *name) {
    int size;
    return strtoll(cca_attention_fact(&size, facts, name, (int)strlen(name)), NULL, 10);
}

bool cca_session_options_resume(cca_session_options *o, const cca_store *store) {
    const char *facts = cca_store_facts(store);
    bool is_auto = strcmp(o->attn, "auto") == 0;
    bool ours = is_auto || strcmp(o->attn, "cca") == 0 || strcmp(o->attn, "recall") == 0;
    if (!ours || !fact_is(facts, "attention", attn_names[CCA_ATTN_CCA])) return false;
    if (o->group_size && o->group_size != fact_number(facts, "group_size")) return false;
    int64_t recall = fact_number(facts, "recall"), sinks = fact_number(facts, "sinks");
    int64_t tile = fact_number(facts, "recall_tile");
    cca_cores cores = fact_is(facts, "cores", "yes") ? CCA_CORES_YES : CCA_CORES_NO;
    if (is_auto && o->recall == CCA_AUTO) o->attn = recall > 0 ? "recall" : "cca";
    bool recalls = strcmp(o->attn, "recall") == 0 || o->recall > 0;
    if (recalls && recall > 0 && o->recall == CCA_AUTO) o->recall = recall;
    if (recalls && recall > 0 && o->recall_tile == CCA_AUTO) o->recall_tile = tile;
    if (o->sinks == CCA_AUTO) o->sinks = sinks;
    if (!o->cores) o->cores = cores;
    bool same = recalls ? o->recall == recall && o->recall_tile == tile : recall == 0;
    return same && o->sinks == sinks && o->cores == cores;
}
