/* Model files with fused tensors, as others write them: the same logits, bit by bit, as with the
 * tensors apart. */
#include "engine.h"
#include "export/gguf_write.h"
#include "export/model_file.h"
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { N_TOKENS = 60, VOCABULARY = 64, MOST = 64 };

static char folder[] = "/tmp/cca-test-fused-XXXXXX";

/* A tensor of the new file: up to three of the old one, one behind the other. */
typedef struct piece {
    char name[64];
    const cca_gguf_tensor *of[3];
    int n;
} piece;

static bool belongs(const char *name, const char *const *parts, int n) {
    for (int i = 0; i < n; i++) {
        if (strstr(name, parts[i])) return true;
    }
    return false;
}

/* Of each layer the tensors named `parts` become one named `whole`. */
static int list_pieces(piece *out, const cca_gguf *file, const char *const *parts, int n_parts,
                       const char *whole) {
    int n = 0;
    for (uint64_t i = 0; i < cca_gguf_n_tensors(file); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(file, i);
        if (belongs(t->name, parts, n_parts)) continue;
        out[n] = (piece){.of = {t}, .n = 1};
        snprintf(out[n++].name, sizeof out->name, "%s", t->name);
    }
    for (int layer = 0;; layer++) {
        piece p = {.n = n_parts};
        for (int k = 0; k < n_parts; k++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s", layer, parts[k]);
            p.of[k] = cca_gguf_find(file, name);
        }
        if (!p.of[0]) return n;
        snprintf(p.name, sizeof p.name, "blk.%d.%s", layer, whole);
        out[n++] = p;
    }
}

static bool all_keys(const void *context, const char *key) {
    (void)context;
    return strcmp(key, "cca.crc32") != 0 && strcmp(key, "cca.fingerprint") != 0;
}

static void fuse(const char *from, const char *to, const char *const *parts, int n_parts,
                 const char *whole) {
    cca_error err;
    cca_gguf *file;
    cca_gguf_writer *w;
    piece pieces[MOST];
    uint32_t crcs[MOST];
    assert_int_equal(cca_gguf_open(&file, from, &err), CCA_OK);
    int n = list_pieces(pieces, file, parts, n_parts, whole);
    assert_int_equal(cca_gguf_writer_new(&w, to, &err), CCA_OK);
    cca_gguf_put_others(w, file, all_keys, NULL);
    for (int i = 0; i < n; i++) {
        int64_t dims[2] = {pieces[i].of[0]->dims[0], 0};
        uint64_t bytes = 0;
        for (int k = 0; k < pieces[i].n; k++) {
            dims[1] += pieces[i].of[k]->dims[1];
            bytes += pieces[i].of[k]->bytes;
        }
        cca_gguf_put_tensor(w, pieces[i].name, (int)pieces[i].of[0]->n_dims, dims,
                            (cca_dtype)pieces[i].of[0]->type, bytes);
    }
    assert_int_equal(cca_gguf_writer_begin(w, &err), CCA_OK);
    for (int i = 0; i < n; i++) {
        uint64_t at = 0;
        crcs[i] = 0;
        for (int k = 0; k < pieces[i].n; k++) {
            const cca_gguf_tensor *t = pieces[i].of[k];
            crcs[i] = (uint32_t)crc32_z(crcs[i], t->data, (size_t)t->bytes);
            assert_int_equal(
                cca_gguf_writer_write(w, (uint64_t)i, at, t->data, (size_t)t->bytes, &err), CCA_OK);
            at += t->bytes;
        }
    }
    assert_int_equal(cca_gguf_writer_finish(w, crcs, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_commit(w, &err), CCA_OK);
    cca_gguf_writer_free(w), cca_gguf_close(file);
}

static void last_logits(float out[VOCABULARY], const char *path) {
    cca_error err;
    cca_engine *engine;
    cca_session *session;
    int32_t tokens[N_TOKENS];
    cca_engine_options eo = {.device = "cpu", .n_threads = 1};
    cca_session_options so = cca_session_defaults();
    so.ctx_size = N_TOKENS, so.attn = "full";
    for (int i = 0; i < N_TOKENS; i++) tokens[i] = i * 7 % VOCABULARY;
    if (cca_engine_open(&engine, path, &eo, &err) != CCA_OK) fail_msg("%s", err.text);
    if (cca_session_new(&session, engine, &so, &err) != CCA_OK) fail_msg("%s", err.text);
    const cca_eval_options eval = {0};
    if (cca_session_eval(session, tokens, N_TOKENS, &eval, &err) != CCA_OK) {
        fail_msg("%s", err.text);
    }
    memcpy(out, cca_session_logits(session, &err), VOCABULARY * sizeof *out);
    cca_session_free(session), cca_engine_close(engine);
}

static void fused_tensors_are_cut(void **state) {
    (void)state;
    static const char *const qkv[] = {"attn_q.weight", "attn_k.weight", "attn_v.weight"};
    static const char *const gate_up[] = {"ffn_gate.weight", "ffn_up.weight"};
    static const char *const names[] = {"hf-phi3", "hf-phi3-partial", "hf-glm4", "hf-qwen3"};
    char apart[128], one[128], both[128], again[128], input[128];
    snprintf(apart, sizeof apart, "%s/apart.gguf", folder);
    snprintf(one, sizeof one, "%s/one.gguf", folder);
    snprintf(both, sizeof both, "%s/both.gguf", folder);
    snprintf(again, sizeof again, "%s/again.gguf", folder);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        float want[VOCABULARY], got[VOCABULARY];
        cca_error err;
        snprintf(input, sizeof input, "tests/golden/models/%s", names[i]);
        cca_export_options o = {.input = input, .output = apart, .has_type = true, .type = CCA_F16};
        if (cca_export(&o, &err) != CCA_OK) fail_msg("%s", err.text);
        fuse(apart, one, qkv, 3, "attn_qkv.weight");
        fuse(one, both, gate_up, 2, "ffn_up.weight");
        last_logits(want, apart);
        last_logits(got, one);
        assert_memory_equal(got, want, sizeof want);
        last_logits(got, both);
        assert_memory_equal(got, want, sizeof want);

        /* Export takes them apart again. */
        cca_export_options back = {.input = both, .output = again};
        if (cca_export(&back, &err) != CCA_OK) fail_msg("%s", err.text);
        last_logits(got, again);
        assert_memory_equal(got, want, sizeof want);
        cca_gguf *file;
        assert_int_equal(cca_gguf_open(&file, again, &err), CCA_OK);
        assert_non_null(cca_gguf_find(file, "blk.1.attn_v.weight"));
        assert_null(cca_gguf_find(file, "blk.1.attn_qkv.weight"));
        cca_gguf_close(file);
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
