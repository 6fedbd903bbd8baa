/* Model files with fused tensors, as others write them, and export, too, where an architecture has
 * them so: the same logits, bit by bit, as with the tensors apart. */
#include "engine.h"
#include "export/gguf_write.h"
#include "export/model_file.h"
#include "tests/unit/last_logits.h"
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { N_TOKENS = 60, VOCABULARY = 64, MOST = 64 };

static char folder[] = "/tmp/cca-test-fused-XXXXXX";

/* Rows of a tensor of the old file. */
typedef struct part {
    const cca_gguf_tensor *of;
    int64_t first, n;
} part;

/* A tensor of the new file: rows of up to three of the old one, one behind the other. */
typedef struct piece {
    char name[64];
    part parts[3];
    int n;
} piece;

static part all_rows(const cca_gguf_tensor *t) {
    return (part){t, 0, t->dims[1]};
}

static bool belongs(const char *name, const char *const *names, int n) {
    for (int i = 0; i < n; i++) {
        const size_t size = strlen(name), end = strlen(names[i]);
        if (size > end && strcmp(name + size - end, names[i]) == 0) return true;
    }
    return false;
}

/* Of each layer the tensors named `names` become one named `whole`; or, where `apart`, `whole`
 * becomes those, of equal numbers of rows. */
static int list_pieces(piece *out, const cca_gguf *file, const char *const *names, int n_names,
                       const char *whole, bool apart) {
    int n = 0;
    for (uint64_t i = 0; i < cca_gguf_n_tensors(file); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(file, i);
        if (apart ? belongs(t->name, &whole, 1) : belongs(t->name, names, n_names)) continue;
        out[n] = (piece){.parts = {all_rows(t)}, .n = 1};
        snprintf(out[n++].name, sizeof out->name, "%s", t->name);
    }
    for (int layer = 0;; layer++) {
        piece joined = {.n = n_names};
        char name[64];
        snprintf(joined.name, sizeof joined.name, "blk.%d.%s", layer, whole);
        const cca_gguf_tensor *old = cca_gguf_find(file, joined.name);
        for (int k = 0; k < n_names; k++) {
            snprintf(name, sizeof name, "blk.%d.%s", layer, names[k]);
            const cca_gguf_tensor *t = apart ? old : cca_gguf_find(file, name);
            if (!t) return n;
            if (!apart) {
                joined.parts[k] = all_rows(t);
                continue;
            }
            const int64_t rows = t->dims[1] / n_names;
            out[n] = (piece){.parts = {{t, k * rows, rows}}, .n = 1};
            snprintf(out[n++].name, sizeof out->name, "%s", name);
        }
        if (!apart) out[n++] = joined;
    }
}

static bool all_keys(const void *context, const char *key) {
    (void)context;
    return strcmp(key, "cca.crc32") != 0 && strcmp(key, "cca.fingerprint") != 0;
}

static uint64_t row_bytes(const cca_gguf_tensor *t) {
    return t->bytes / (uint64_t)t->dims[1];
}

static void announce(cca_gguf_writer *w, const piece *p) {
    int64_t dims[2] = {p->parts[0].of->dims[0], 0};
    for (int k = 0; k < p->n; k++) dims[1] += p->parts[k].n;
    cca_gguf_put_tensor(w, p->name, (int)p->parts[0].of->n_dims, dims,
                        (cca_dtype)p->parts[0].of->type,
                        (uint64_t)dims[1] * row_bytes(p->parts[0].of));
}

static void rewrite(const char *from, const char *to, const char *const *names, int n_names,
                    const char *whole, bool apart) {
    cca_error err;
    cca_gguf *file;
    cca_gguf_writer *w;
    piece pieces[MOST];
    uint32_t crcs[MOST];
    assert_int_equal(cca_gguf_open(&file, from, &err), CCA_OK);
    int n = list_pieces(pieces, file, names, n_names, whole, apart);
    assert_int_equal(cca_gguf_writer_new(&w, to, &err), CCA_OK);
    cca_gguf_put_others(w, file, all_keys, NULL);
    for (int i = 0; i < n; i++) announce(w, &pieces[i]);
    assert_int_equal(cca_gguf_writer_begin(w, &err), CCA_OK);
    for (int i = 0; i < n; i++) {
        uint64_t at = 0;
        crcs[i] = 0;
        for (int k = 0; k < pieces[i].n; k++) {
            const part *p = &pieces[i].parts[k];
            const uint64_t skip = (uint64_t)p->first * row_bytes(p->of);
            const size_t bytes = (size_t)((uint64_t)p->n * row_bytes(p->of));
            const char *data = (const char *)p->of->data + skip;
            crcs[i] = (uint32_t)crc32_z(crcs[i], (const Bytef *)data, bytes);
            assert_int_equal(cca_gguf_writer_write(w, (uint64_t)i, at, data, bytes, &err), CCA_OK);
            at += bytes;
        }
    }
    assert_int_equal(cca_gguf_writer_finish(w, crcs, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_commit(w, &err), CCA_OK);
    cca_gguf_writer_free(w), cca_gguf_close(file);
}

static void last_logits(float out[VOCABULARY], const char *path) {
    cca_session_options so = cca_session_defaults();
    so.attn = "full";
    float *logits = test_last_logits(path, NULL, so, N_TOKENS);
    memcpy(out, logits, VOCABULARY * sizeof *out);
    free(logits);
}

static void expect_tensor(const char *path, const char *name, int64_t rows) {
    cca_error err;
    cca_gguf *file;
    assert_int_equal(cca_gguf_open(&file, path, &err), CCA_OK);
    const cca_gguf_tensor *t = cca_gguf_find(file, name);
    assert_int_equal(t ? t->dims[1] : 0, rows);
    bool checked = false;
    assert_int_equal(cca_gguf_check_crc(&checked, file, &err), CCA_OK);
    assert_true(checked);
    cca_gguf_close(file);
}

static const char *in_this(const char *name) {
    static char paths[8][128];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void export_to(const char *input, const char *output, cca_dtype type) {
    cca_error err;
    cca_export_options o = {.input = input, .output = output, .has_type = true, .type = type};
    if (cca_export(&o, &err) != CCA_OK) fail_msg("%s", err.text);
}

/* Whatever is in one tensor and whatever is apart, a model gives the same logits; export writes
 * gate and up as the architecture has them, whatever it reads. */
static void fused_tensors_are_cut(void **state) {
    (void)state;
    static const char *const qkv[] = {"attn_q.weight", "attn_k.weight", "attn_v.weight"};
    static const char *const gate_up[] = {"ffn_gate.weight", "ffn_up.weight"};
    static const struct {
        const char *name;
        bool fused; /* gate and up, in its files */
        int64_t v_rows;
    } models[] = {{"hf-phi3", false, 16},
                  {"hf-phi3-partial", true, 16},
                  {"hf-glm4", true, 32},
                  {"hf-qwen3", false, 32}};
    enum { HIDDEN_DIM = 48 };
    const char *made = in_this("made.gguf"), *apart = in_this("apart.gguf"),
               *one = in_this("one.gguf"), *both = in_this("both.gguf"),
               *again = in_this("again.gguf");
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        float want[VOCABULARY], got[VOCABULARY];
        char input[128];
        const bool fused = models[i].fused;
        snprintf(input, sizeof input, "tests/golden/models/%s", models[i].name);
        export_to(input, made, CCA_F16);
        expect_tensor(made, "blk.1.ffn_up.weight", fused ? 2 * HIDDEN_DIM : HIDDEN_DIM);
        expect_tensor(made, "blk.1.ffn_gate.weight", fused ? 0 : HIDDEN_DIM);
        export_to(made, apart, CCA_F16);
        if (fused) rewrite(made, apart, gate_up, 2, "ffn_up.weight", true);
        rewrite(apart, one, qkv, 3, "attn_qkv.weight", false);
        rewrite(one, both, gate_up, 2, "ffn_up.weight", false);
        last_logits(want, made);
        const char *const others[] = {apart, one, both};
        for (int k = 0; k < 3; k++) {
            last_logits(got, others[k]);
            assert_memory_equal(got, want, sizeof want);
            export_to(others[k], again, CCA_F16);
            last_logits(got, again);
            assert_memory_equal(got, want, sizeof want);
            expect_tensor(again, "blk.1.attn_v.weight", models[i].v_rows);
            expect_tensor(again, "blk.1.attn_qkv.weight", 0);
            expect_tensor(again, "blk.1.ffn_up.weight", fused ? 2 * HIDDEN_DIM : HIDDEN_DIM);
            expect_tensor(again, "blk.1.ffn_gate.weight", fused ? 0 : HIDDEN_DIM);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(fused_tensors_are_cut)};
    if (!mkdtemp(folder)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[160];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) ? 1 : failed;
}
