/* Patches: their tensors and keys stand in the place of a model's, which has to be the one that
 * they are for. */
#include "export/gguf_write.h"
#include "export_files.h"

#include <zlib.h>

static const cca_random_shape of_base = {32, 2, 4, 2, 64, 40, .seed = 1},
                              of_donor = {32, 2, 4, 2, 64, 40, .seed = 2},
                              wider = {32, 2, 4, 2, 96, 40, .seed = 1};

static cca_gguf *make(const cca_random_shape *shape, cca_dtype type, const char *name) {
    return export_model((cca_export_options){
        .random = shape, .has_type = true, .type = type, .output = in_folder(name)});
}

/* What a patch says; zero is a good one. */
typedef struct spoil {
    const char *without, *architecture, *renamed; /* a key; another; a tensor of the base's list */
    bool damaged, fewer;                          /* a checksum; one is missing */
    const char *more;                             /* a tensor that no model has */
} spoil;

static void put_lists(cca_gguf_writer *w, const cca_gguf *base, const spoil *s) {
    cca_gguf_string names[64];
    uint32_t crcs[64] = {0};
    uint64_t n = cca_gguf_n_tensors(base);
    assert_true(n <= 64);
    for (uint64_t i = 0; i < n; i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(base, n - 1 - i); /* in another order */
        const char *name = s->renamed && strcmp(t->name, s->renamed) == 0 ? "nobody" : t->name;
        names[i] = (cca_gguf_string){name, strlen(name)};
        crcs[i] = (uint32_t)crc32_z(0, t->data, t->bytes);
    }
    if (s->damaged) crcs[3] ^= 1;
    if (!s->without || strcmp(s->without, "cca.patch.tensors") != 0) {
        cca_gguf_put_strings(w, "cca.patch.tensors", n, names);
    }
    if (!s->without || strcmp(s->without, "cca.patch.crc32") != 0) {
        cca_gguf_put_numbers(w, "cca.patch.crc32", CCA_GGUF_U32, n - s->fewer, crcs);
    }
}

static bool of_attention(const char *name) {
    return strstr(name, ".attn_") && !strstr(name, "norm");
}

static void put_tensors(cca_gguf_writer *w, const cca_gguf *donor, const char *more) {
    for (uint64_t i = 0; i < cca_gguf_n_tensors(donor); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(donor, i);
        if (!of_attention(t->name)) continue;
        cca_gguf_put_tensor(w, more ? more : t->name, (int)t->n_dims, t->dims, (cca_dtype)t->type,
                            t->bytes);
        if (more) return;
    }
}

static void write_tensors(cca_gguf_writer *w, const cca_gguf *donor, bool one, uint32_t *crcs) {
    cca_error err;
    uint64_t n = 0;
    for (uint64_t i = 0; i < cca_gguf_n_tensors(donor) && (n == 0 || !one); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(donor, i);
        if (!of_attention(t->name)) continue;
        crcs[n] = (uint32_t)crc32_z(0, t->data, t->bytes);
        assert_int_equal(cca_gguf_writer_write(w, n++, 0, t->data, t->bytes, &err), CCA_OK);
    }
}

/* The donor's attention for the base, with other groups, a length and a key of its own. */
static const char *write_patch(const cca_gguf *base, const cca_gguf *donor, const spoil *s) {
    const char *path = in_folder("patch.gguf");
    cca_gguf_writer *w;
    cca_error err;
    uint32_t crcs[64];
    assert_int_equal(cca_gguf_writer_new(&w, path, &err), CCA_OK);
    cca_gguf_put_text(w, "general.architecture", s->architecture ? s->architecture : "llama");
    cca_gguf_put_text(w, "general.name", "patched");
    cca_gguf_put_u32(w, "general.file_type", 7);
    cca_gguf_put_text(w, "cca.patch.base", "The Base");
    cca_gguf_put_u32(w, "cca.group_size", 8);
    cca_gguf_put_u32(w, "cca.window_size", 64);
    cca_gguf_put_u32(w, "llama.context_length", 777);
    cca_gguf_put_text(w, "general.origin", "a run");
    put_lists(w, base, s);
    put_tensors(w, donor, s->more);
    assert_int_equal(cca_gguf_writer_begin(w, &err), CCA_OK);
    write_tensors(w, donor, s->more, crcs);
    assert_int_equal(cca_gguf_writer_finish(w, crcs, &err), CCA_OK);
    assert_int_equal(cca_gguf_writer_commit(w, &err), CCA_OK);
    cca_gguf_writer_free(w);
    return path;
}

static void expect_patched(cca_dtype of_file, cca_dtype of_patch) {
    cca_gguf *base = make(&of_base, of_file, "base.gguf");
    cca_gguf *donor = make(&of_donor, of_patch, "donor.gguf");
    const char *patch = write_patch(base, donor, &(spoil){0});
    cca_gguf *out =
        export_model((cca_export_options){.input = in_folder("base.gguf"), .patch = patch});
    int n_taken = 0;
    assert_int_equal(cca_gguf_n_tensors(out), cca_gguf_n_tensors(base));
    for (uint64_t i = 0; i < cca_gguf_n_tensors(out); i++) {
        const cca_gguf_tensor *t = cca_gguf_tensor_at(out, i);
        const cca_gguf_tensor *u = tensor_of(of_attention(t->name) ? donor : base, t->name);
        n_taken += of_attention(t->name);
        assert_int_equal(t->type, u->type);
        assert_int_equal(t->bytes, u->bytes);
        assert_memory_equal(t->data, u->data, u->bytes);
    }
    assert_int_equal(n_taken, 8);
    assert_int_equal(u32_of(out, "cca.group_size"), 8);
    assert_int_equal(u32_of(out, "cca.window_size"), 64);
    assert_int_equal(u32_of(out, "llama.context_length"), 777);
    assert_int_equal(u32_of(out, "llama.block_count"), 2);
    expect_text(out, "general.name", "patched");
    expect_text(out, "general.origin", "a run");
    assert_false(cca_gguf_has(out, "cca.patch.base"));
    assert_false(cca_gguf_has(out, "cca.patch.crc32"));
    bool checked = false;
    assert_int_equal(cca_gguf_check_crc(&checked, out, NULL), CCA_OK);
    assert_true(checked);
    cca_gguf_close(base), cca_gguf_close(donor), cca_gguf_close(out);
}

static void patched(void **state) {
    (void)state;
    expect_patched(CCA_F32, CCA_Q8_0);
    expect_patched(CCA_Q8_0, CCA_F16);
    expect_patched(CCA_Q4_0, CCA_Q4_0);
}

/* A patch is a file like others, and options go before what it says. */
static void options_go_first(void **state) {
    (void)state;
    cca_gguf *base = make(&of_base, CCA_F32, "base.gguf");
    cca_gguf *donor = make(&of_donor, CCA_F32, "donor.gguf");
    const char *patch = write_patch(base, donor, &(spoil){0});
    cca_gguf *out = export_model((cca_export_options){.input = in_folder("base.gguf"),
                                                      .patch = patch,
                                                      .has_type = true,
                                                      .type = CCA_Q8_0,
                                                      .window_size = 16,
                                                      .ctx_size = 99});
    assert_int_equal(type_of(out, "blk.0.attn_q.weight"), CCA_Q8_0);
    assert_int_equal(type_of(out, "blk.0.ffn_up.weight"), CCA_Q8_0);
    assert_int_equal(u32_of(out, "cca.group_size"), 8);
    assert_int_equal(u32_of(out, "cca.window_size"), 16);
    assert_int_equal(u32_of(out, "llama.context_length"), 99);
    cca_gguf_close(base), cca_gguf_close(donor), cca_gguf_close(out);
}

static void refuse(const cca_gguf *base, const cca_gguf *donor, const char *input, spoil s,
                   const char *message) {
    expect_failure(
        (cca_export_options){.input = in_folder(input), .patch = write_patch(base, donor, &s)},
        CCA_BAD_MODEL, message);
}

static void refusals(void **state) {
    (void)state;
    cca_gguf *base = make(&of_base, CCA_F32, "base.gguf");
    cca_gguf *donor = make(&of_donor, CCA_F32, "donor.gguf");
    cca_gguf *other = make(&wider, CCA_F32, "wider.gguf");
    refuse(base, donor, "donor.gguf", (spoil){0},
           "they differ in 'token_embd.weight'; its base is The Base");
    refuse(base, donor, "wider.gguf", (spoil){0}, "they differ in 'blk.0.ffn_gate.weight'");
    refuse(base, donor, "base.gguf", (spoil){.damaged = true}, "made for other weights");
    refuse(base, donor, "base.gguf", (spoil){.fewer = true}, "as many checksums");
    refuse(base, donor, "base.gguf", (spoil){.renamed = "blk.1.ffn_up.weight"},
           "they have 'blk.1.ffn_up.weight'");
    refuse(base, donor, "base.gguf", (spoil){.without = "cca.patch.crc32"}, "'cca.patch.crc32'");
    refuse(base, donor, "base.gguf", (spoil){.without = "cca.patch.tensors"},
           "'cca.patch.tensors'");
    refuse(base, donor, "base.gguf", (spoil){.architecture = "qwen2"}, "is for qwen2");
    refuse(base, donor, "base.gguf", (spoil){.more = "blk.0.nothing"},
           "tensor 'blk.0.nothing' is none of");
    refuse(base, donor, "base.gguf", (spoil){.more = "output_norm.weight"}, "in this shape");
    expect_failure(
        (cca_export_options){.input = in_folder("base.gguf"), .patch = in_folder("base.gguf")},
        CCA_BAD_MODEL, "'cca.patch.tensors'");
    expect_failure(
        (cca_export_options){.input = in_folder("base.gguf"), .patch = in_folder("nothing.gguf")},
        CCA_BAD_MODEL, "nothing.gguf");
    const char *patch = write_patch(base, donor, &(spoil){0});
    expect_failure((cca_export_options){.random = &of_base, .patch = patch}, CCA_USAGE,
                   "goes with a GGUF file");
    expect_failure(
        (cca_export_options){.input = in_folder("base.gguf"), .patch = patch, .output = patch},
        CCA_USAGE, "is both input and output");
    cca_gguf_close(base), cca_gguf_close(donor), cca_gguf_close(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patched),
        cmocka_unit_test(options_go_first),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
