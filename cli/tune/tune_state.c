/* What is measured outlives the process: a JSON file of finished points. */
#include "base/hash.h"
#include "cli/stored_prefill.h"
#include "cli/tune/tune.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char schema[] = "cca.tune.state.2";

static cca_status default_path(char **out, const char *signature, cca_error *err) {
    char *folder;
    uint64_t name = cca_hash(signature, strlen(signature));
    cca_status status = stored_make_folder(&folder, err);
    if (!status && asprintf(out, "%s/tune-%016llx.json", folder, (unsigned long long)name) < 0) {
        *out = NULL;
        status = cca_fail(err, CCA_NO_MEMORY, "no memory for the state");
    }
    free(folder);
    return status;
}

/* Names the first word in which two signatures differ. */
static cca_status other_settings(const tune_state *s, const char *theirs, cca_error *err) {
    const char *ours = s->signature;
    size_t a, b;
    for (;;) {
        a = strcspn(ours, " "), b = strcspn(theirs, " ");
        if (a != b || memcmp(ours, theirs, a) != 0 || ours[a] == '\0') break;
        ours += a + 1;
        theirs += b + (theirs[b] == ' ');
    }
    if (b == 0) theirs = "no word of what this one names", b = strlen(theirs);
    return cca_fail(err, CCA_BAD_MODEL, "%s: measured with %.*s, this run has %.*s", s->path,
                    (int)b, theirs, (int)a, ours);
}

static cca_status read_state(tune_state *s, cca_error *err) {
    json_error_t why;
    const char *kind, *signature;
    json_t *points, *all = json_load_file(s->path, 0, &why);
    cca_status status = CCA_OK;
    if (!all) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: not a state file of cca tune: %s", s->path,
                        why.text);
    }
    if (json_unpack(all, "{s:s, s:s, s:o}", "schema", &kind, "signature", &signature, "points",
                    &points) != 0 ||
        !json_is_array(points)) {
        status = cca_fail(err, CCA_BAD_MODEL, "%s: not a state file of cca tune", s->path);
    } else if (strcmp(kind, schema) != 0) {
        status = cca_fail(err, CCA_BAD_MODEL, "%s: a state of kind %s, this program's are %s",
                          s->path, kind, schema);
    } else if (strcmp(signature, s->signature) != 0) {
        status = other_settings(s, signature, err);
    } else if (json_array_extend(s->points, points) != 0) {
        status = cca_fail(err, CCA_NO_MEMORY, "%s: no memory to read it", s->path);
    }
    json_decref(all);
    return status;
}

cca_status tune_state_open(tune_state *s, const char *file, const char *signature, term *t,
                           cca_error *err) {
    *s = (tune_state){.signature = signature, .named = file != NULL, .points = json_array()};
    if (file) s->path = strdup(file);
    if (!s->points || (file && !s->path)) {
        return cca_fail(err, CCA_NO_MEMORY, "no memory for the state");
    }
    cca_status status = file ? CCA_OK : default_path(&s->path, signature, err);
    if (status == CCA_NO_MEMORY) return status;
    if (status || !s->path) {
        term_warn(t, "%s; an interrupted run will start anew", err->text);
        return CCA_OK;
    }
    if (access(s->path, F_OK) != 0) return CCA_OK;
    status = read_state(s, err);
    if (status != CCA_BAD_MODEL || s->named) return status;
    term_warn(t, "%s; it is made anew", err->text);
    return CCA_OK;
}

bool tune_state_find(const tune_state *s, tune_point *p) {
    size_t i;
    json_t *entry;
    json_array_foreach(s->points, i, entry) {
        json_int_t g, w, sinks, recall, scored, facts, right;
        int cores;
        double ppl, error, prefill, decode;
        if (json_unpack(entry, "{s:I, s:I, s:I, s:I, s:b, s:I, s:F, s:F, s:I, s:I, s:F, s:F}",
                        "group_size", &g, "window_size", &w, "sinks", &sinks, "recall", &recall,
                        "cores", &cores, "scored", &scored, "perplexity", &ppl, "standard_error",
                        &error, "facts", &facts, "right", &right, "prefill_tok_s", &prefill,
                        "decode_tok_s", &decode) != 0) {
            continue;
        }
        tune_point of = {
            .group_size = g, .window_size = w, .sinks = sinks, .recall = recall, .cores = cores};
        if (!tune_same_point(&of, p)) continue;
        p->n_scored = scored;
        p->perplexity = ppl;
        p->standard_error = error;
        p->n_facts = facts;
        p->n_right = right;
        p->prefill_tps = prefill;
        p->decode_tps = decode;
        p->measured = p->reused = true;
        return true;
    }
    return false;
}

/* The reals with all their digits, so that a table is the same from a file. */
static cca_status write_state(const tune_state *s, cca_error *err) {
    output out;
    json_t *all = json_pack("{s:s, s:s, s:O}", "schema", schema, "signature", s->signature,
                            "points", s->points);
    char *text = all ? json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(all);
    if (!text) return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to write it", s->path);
    cca_status status = output_open(&out, s->path, err);
    if (!status) {
        output_write(&out, text, strlen(text));
        output_write(&out, "\n", 1);
        status = output_close(&out, true, err);
    }
    free(text);
    return status;
}

cca_status tune_state_add(tune_state *s, const tune_point *p, term *t, cca_error *err) {
    json_t *entry = json_pack(
        "{s:I, s:I, s:I, s:I, s:b, s:I, s:o, s:o, s:I, s:I, s:o, s:o}", "group_size",
        (json_int_t)p->group_size, "window_size", (json_int_t)p->window_size, "sinks",
        (json_int_t)p->sinks, "recall", (json_int_t)p->recall, "cores", (int)p->cores, "scored",
        (json_int_t)p->n_scored, "perplexity", output_real(true, p->perplexity), "standard_error",
        output_real(true, p->standard_error), "facts", (json_int_t)p->n_facts, "right",
        (json_int_t)p->n_right, "prefill_tok_s", output_real(true, p->prefill_tps), "decode_tok_s",
        output_real(true, p->decode_tps));
    if (!s->path) {
        json_decref(entry);
        return CCA_OK;
    }
    if (json_array_append_new(s->points, entry) != 0) {
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for the state", s->path);
    }
    cca_status status = write_state(s, err);
    if (!status || s->named || status == CCA_NO_MEMORY) return status;
    term_warn(t, "%s; no state is kept", err->text);
    free(s->path);
    s->path = NULL;
    return CCA_OK;
}

void tune_state_close(tune_state *s) {
    json_decref(s->points);
    free(s->path);
    *s = (tune_state){0};
}
