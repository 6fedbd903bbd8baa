/* The tokenizer from model files: from the original bytes, rebuilt from lists, and refused. */
#include "tokenizer_golden.h"

#include <unistd.h>

typedef struct gguf_maker {
    FILE *stream;
    char *bytes;
    size_t size;
    uint64_t n_keys;
} gguf_maker;

static void put(gguf_maker *m, const void *p, size_t size) {
    assert_int_equal(fwrite(p, 1, size, m->stream), size);
}

static void put_number(gguf_maker *m, uint64_t value, size_t size) {
    put(m, &value, size);
}

static void put_string(gguf_maker *m, const char *p, size_t size) {
    put_number(m, size, 8);
    put(m, p, size);
}

static void put_key(gguf_maker *m, const char *key, uint32_t type) {
    put_string(m, key, strlen(key));
    put_number(m, type, 4);
    m->n_keys++;
}

static void put_array(gguf_maker *m, const char *key, uint32_t type, uint64_t n) {
    put_key(m, key, CCA_GGUF_ARRAY);
    put_number(m, type, 4);
    put_number(m, n, 8);
}

static void put_u32(gguf_maker *m, const char *key, uint32_t value) {
    put_key(m, key, CCA_GGUF_U32);
    put_number(m, value, 4);
}

static void put_bool(gguf_maker *m, const char *key, bool value) {
    put_key(m, key, CCA_GGUF_BOOL);
    put_number(m, value, 1);
}

static void put_text(gguf_maker *m, const char *key, const char *value) {
    put_key(m, key, CCA_GGUF_STRING);
    put_string(m, value, strlen(value));
}

static void put_original(gguf_maker *m, bytes model) {
    put_array(m, "cca.tokenizer.sentencepiece", CCA_GGUF_U8, model.size);
    put(m, model.p, model.size);
}

static void start_gguf(gguf_maker *m) {
    *m = (gguf_maker){0};
    m->stream = open_memstream(&m->bytes, &m->size);
    assert_non_null(m->stream);
    put(m, "GGUF", 4);
    put_number(m, 3, 4);
    put_number(m, 0, 8);
    put_number(m, 0, 8);
}

/* Opens the tokenizer of what was put, and throws the file away. */
static cca_status finish_gguf(cca_tokenizer **tok, gguf_maker *m, cca_error *err) {
    cca_gguf *file;
    assert_int_equal(fclose(m->stream), 0);
    memcpy(m->bytes + 16, &m->n_keys, 8);
    if (cca_gguf_parse(&file, m->bytes, m->size, "made", err) != CCA_OK) fail_msg("%s", err->text);
    cca_status status = cca_tokenizer_open(tok, file, err);
    cca_gguf_close(file);
    free(m->bytes);
    return status;
}

static cca_tokenizer *finish(gguf_maker *m) {
    cca_tokenizer *tok;
    cca_error err = {.text = ""};
    if (finish_gguf(&tok, m, &err) != CCA_OK) fail_msg("%s", err.text);
    return tok;
}

static void refuse(gguf_maker *m, const char *named) {
    cca_tokenizer *tok;
    cca_error err = {.text = ""};
    assert_int_equal(finish_gguf(&tok, m, &err), CCA_BAD_MODEL);
    assert_null(tok);
    if (!strstr(err.text, named) || strncmp(err.text, "made: ", 6) != 0) {
        fail_msg("\"%s\" does not name %s", err.text, named);
    }
}

/* The three lists of a vocabulary, cut or with more elements than there are pieces. */
static void put_lists(gguf_maker *m, const cca_spm_model *model, size_t n_tokens, size_t n_scores,
                      size_t n_types) {
    size_t n = model->n_pieces;
    put_array(m, "tokenizer.ggml.tokens", CCA_GGUF_STRING, n_tokens);
    for (size_t i = 0; i < n_tokens; i++) {
        char more[32];
        int size = snprintf(more, sizeof more, "<more%zu>", i);
        cca_spm_text t = i < n ? model->pieces[i].text : (cca_spm_text){more, (size_t)size};
        put_string(m, t.bytes, t.size);
    }
    put_array(m, "tokenizer.ggml.scores", CCA_GGUF_F32, n_scores);
    for (size_t i = 0; i < n_scores; i++) {
        float score = i < n ? model->pieces[i].score : 0;
        put(m, &score, 4);
    }
    put_array(m, "tokenizer.ggml.token_type", CCA_GGUF_I32, n_types);
    for (size_t i = 0; i < n_types; i++) {
        put_number(m, i < n ? model->pieces[i].type : CCA_SPM_USER, 4);
    }
}

static cca_spm_model read_model(bytes file) {
    cca_spm_model model;
    cca_error err = {.text = ""};
    if (cca_spm_model_read(&model, file.p, file.size, "test", &err) != CCA_OK) {
        fail_msg("%s", err.text);
    }
    return model;
}

static void check_rebuilt(const golden *g, const char *path, const char *name) {
    bytes file = read_needed(path);
    cca_spm_model model = read_model(file);
    gguf_maker m;
    start_gguf(&m);
    put_text(&m, "tokenizer.ggml.model", "llama");
    put_lists(&m, &model, model.n_pieces, model.n_pieces, model.n_pieces);
    if (!model.add_dummy_prefix) put_bool(&m, "tokenizer.ggml.add_space_prefix", false);
    cca_tokenizer *tok = finish(&m);
    const cca_tokenizer_facts *f = cca_tokenizer_info(tok);
    assert_true(f->bos == model.bos && f->eos == model.eos && f->unk == 0 && f->pad == model.pad);
    assert_true(f->add_bos && f->dummy_prefix == model.add_dummy_prefix);
    check_ids(g, tok, name);
    cca_tokenizer_close(tok);
    cca_spm_model_free(&model);
    free(file.p);
}

static void test_rebuilt(void **state) {
    check_rebuilt(*state, GOLDEN "llama-like.model.gz", "llama-like");
    check_rebuilt(*state, GOLDEN "blanks.model.gz", "blanks");
    check_rebuilt(*state, GOLDEN "phrases.model.gz", "phrases");
}

static void test_rebuilt_llama2(void **state) {
    if (access(SHARED "llama2-tokenizer.model", R_OK) != 0) {
        puts("SKIP test_rebuilt_llama2: no " SHARED "llama2-tokenizer.model");
        return;
    }
    check_rebuilt(*state, SHARED "llama2-tokenizer.model", "llama2");
}

/* tokenizer.bin of llama2.c: i32 longest; then f32 score, i32 size, text a token. */
static void put_llama2c(gguf_maker *m, bytes file) {
    cca_spm_model model;
    cca_spm_model_init(&model);
    bytes texts = {calloc(3, file.size), 0};
    assert_non_null(texts.p);
    for (size_t at = 4; at < file.size;) {
        cca_spm_piece piece = {.type = CCA_SPM_NORMAL};
        size_t i = model.n_pieces;
        int32_t size;
        memcpy(&piece.score, file.p + at, 4);
        memcpy(&size, file.p + at + 4, 4);
        const char *p = file.p + at + 8, *start = texts.p + texts.size;
        at += 8 + (size_t)size;
        for (int32_t k = 0; k < size; k++) {
            const char *c = p[k] == ' ' ? "\xe2\x96\x81" : (char[2]){p[k], 0};
            while (*c) texts.p[texts.size++] = *c++;
        }
        piece.text = (cca_spm_text){start, (size_t)(texts.p + texts.size - start)};
        if (i < 3) piece.type = i == 0 ? CCA_SPM_UNKNOWN : CCA_SPM_CONTROL;
        if (i >= 3 && i < 259) piece.type = CCA_SPM_BYTE;
        assert_true(cca_spm_model_push(&model, piece));
    }
    put_lists(m, &model, model.n_pieces, model.n_pieces, model.n_pieces);
    cca_spm_model_free(&model);
    free(texts.p);
}

static void test_llama2c(void **state) {
    (void)state;
    static const char text[] = "Once upon a time, there was a little girl named Lily. She loved to "
                               "play outside in the park. One day, she saw a big, red ball. She "
                               "wanted to play with it, but it was too high.\n";
    static const int32_t expected[] = {
        403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338,
        401, 396, 267, 337, 410, 408, 419, 292, 411, 322, 265, 282, 295, 433, 426, 385,
        328, 432, 358, 394, 261, 370, 432, 352, 266, 268, 388, 426, 338, 391, 266, 267,
        337, 335, 312, 432, 398, 312, 286, 267, 414, 270, 333, 415, 426, 13};
    bytes file = read_file(SHARED "tok512.bin");
    if (!file.p) {
        puts("SKIP test_llama2c: no " SHARED "tok512.bin");
        return;
    }
    gguf_maker m;
    start_gguf(&m);
    put_text(&m, "tokenizer.ggml.model", "llama");
    put_llama2c(&m, file);
    put_u32(&m, "tokenizer.ggml.bos_token_id", 1);
    put_u32(&m, "tokenizer.ggml.eos_token_id", 2);
    cca_tokenizer *tok = finish(&m);
    assert_int_equal(cca_tokenizer_info(tok)->vocab_size, 512);
    assert_true(cca_tokenizer_info(tok)->bos == 1 && cca_tokenizer_is_end(tok, 2));
    cca_tokens tokens = encode(tok, text, sizeof text - 1, CCA_ENCODE_START);
    assert_int_equal(tokens.n, sizeof expected / sizeof *expected);
    assert_memory_equal(tokens.ids, expected, sizeof expected);
    cca_tokens_free(&tokens);
    cca_tokenizer_close(tok);
    free(file.p);
}

/* The original bytes win over the lists, which may name more tokens; ids may be overruled. */
static void test_original(void **state) {
    const golden *g = *state;
    bytes file = read_needed(GOLDEN "llama-like.model.gz");
    cca_spm_model model = read_model(file);
    gguf_maker m;
    start_gguf(&m);
    put_text(&m, "tokenizer.ggml.model", "gpt2");
    put_original(&m, file);
    put_lists(&m, &model, 650, 650, 645); /* types for some only */
    refuse(&m, "tokenizer.ggml.token_type");

    start_gguf(&m);
    put_original(&m, file);
    put_lists(&m, &model, 650, 650, 650);
    put_u32(&m, "tokenizer.ggml.bos_token_id", 2);
    put_u32(&m, "tokenizer.ggml.eos_token_id", 641);
    put_u32(&m, "tokenizer.ggml.padding_token_id", 649);
    put_u32(&m, "tokenizer.ggml.eot_token_id", 642);
    put_array(&m, "cca.end_token_ids", CCA_GGUF_I32, 2);
    put_number(&m, 643, 4);
    put_number(&m, 5, 4);
    put_bool(&m, "tokenizer.ggml.add_bos_token", false);
    cca_tokenizer *tok = finish(&m);
    const cca_tokenizer_facts *f = cca_tokenizer_info(tok);
    assert_int_equal(f->vocab_size, 650);
    assert_true(f->bos == 2 && f->eos == 641 && f->pad == 649 && f->unk == 0 && !f->add_bos);
    for (int32_t id = 0; id < 650; id++) {
        bool listed = id == 5 || (id >= 641 && id <= 643), named = id == 2; /* </s> */
        assert_int_equal(cca_tokenizer_is_end(tok, id), listed || named);
    }
    assert_string_equal(cca_tokenizer_piece(tok, 645), "<more645>");
    check_bytes(tok, 645, false, "<more645>");
    check_pieces(tok, "the<more645>the", CCA_ENCODE_START, "▁the@0 <more645>@3 t@12 he@13");
    check_ids(g, tok, "llama-like");
    cca_tokenizer_close(tok);
    cca_spm_model_free(&model);
    free(file.p);
}

/* Without types, further tokens are padding: listed, but nothing in a text. */
static void test_padding(void **state) {
    (void)state;
    bytes file = read_needed(GOLDEN "llama-like.model.gz");
    gguf_maker m;
    start_gguf(&m);
    put_original(&m, file);
    put_array(&m, "tokenizer.ggml.tokens", CCA_GGUF_STRING, 642);
    for (int i = 0; i < 642; i++) put_string(&m, "<pad>", i == 641 ? 0 : 5);
    cca_tokenizer *tok = finish(&m);
    assert_int_equal(cca_tokenizer_info(tok)->vocab_size, 642);
    assert_string_equal(cca_tokenizer_piece(tok, 640), "<pad>");
    assert_string_equal(cca_tokenizer_piece(tok, 641), "");
    check_bytes(tok, 640, true, "");
    cca_tokenizer_close(tok);
    free(file.p);
}

/* Padding that a converter called unknown: the unknown piece is the first, or the one named. */
static void test_several_unknown(void **state) {
    const golden *g = *state;
    bytes file = read_needed(GOLDEN "llama-like.model.gz");
    for (int named = 0; named < 2; named++) {
        cca_spm_model model = read_model(file);
        const size_t n = model.n_pieces;
        const char *const padding[] = {"[PAD640]", "[PAD641]"};
        for (int i = 0; i < 2; i++) {
            cca_spm_piece piece = {{padding[i], 8}, -10000, CCA_SPM_UNKNOWN};
            assert_true(cca_spm_model_push(&model, piece));
        }
        gguf_maker m;
        start_gguf(&m);
        put_text(&m, "tokenizer.ggml.model", "llama");
        put_lists(&m, &model, n + 2, n + 2, n + 2);
        if (named) put_u32(&m, "tokenizer.ggml.unknown_token_id", (uint32_t)n + 1);
        cca_tokenizer *tok = finish(&m);
        assert_int_equal(cca_tokenizer_info(tok)->unk, named ? n + 1 : 0);
        check_bytes(tok, (int32_t)n, false, "");
        check_bytes(tok, (int32_t)n + 1, false, named ? " \xe2\x81\x87 " : "");
        check_pieces(tok, "[PAD640]", CCA_ENCODE_SPECIAL, "[PAD640]@0");
        if (!named) check_ids(g, tok, "llama-like");
        cca_tokenizer_close(tok);
        cca_spm_model_free(&model);
    }
    free(file.p);
}

/* Ids that writers put for "none" are as if the keys were not there; an empty piece is in no text.
 */
static void test_none(void **state) {
    const golden *g = *state;
    bytes file = read_needed(GOLDEN "llama-like.model.gz");
    static const char *const keys[] = {
        "tokenizer.ggml.bos_token_id",     "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id",
        "tokenizer.ggml.eot_token_id",     "tokenizer.ggml.eom_token_id"};
    static const uint32_t types[] = {CCA_GGUF_U32, CCA_GGUF_I32, CCA_GGUF_U64, CCA_GGUF_I64};
    for (int i = 0; i < 4; i++) {
        cca_spm_model model = read_model(file);
        cca_spm_piece empty = {{"", 0}, 0, CCA_SPM_NORMAL};
        const size_t n = model.n_pieces;
        assert_true(cca_spm_model_push(&model, empty) && cca_spm_model_push(&model, empty));
        gguf_maker m;
        start_gguf(&m);
        put_text(&m, "tokenizer.ggml.model", "llama");
        put_lists(&m, &model, n + 2, n + 2, n + 2);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            put_key(&m, keys[k], types[i]);
            put_number(&m, types[i] == CCA_GGUF_I64 ? UINT64_MAX : UINT32_MAX, i < 2 ? 4 : 8);
        }
        cca_tokenizer *tok = finish(&m);
        const cca_tokenizer_facts *f = cca_tokenizer_info(tok);
        assert_true(f->bos == 1 && f->eos == 2 && f->unk == 0 && f->pad == -1 && f->add_bos);
        check_bytes(tok, (int32_t)n, true, "");
        check_ids(g, tok, "llama-like");
        cca_tokenizer_close(tok);
        cca_spm_model_free(&model);
    }
    free(file.p);
}

/* Well-known tokens are control tokens, and the ends among them end a text, whatever their type. */
static void test_known_names(void **state) {
    (void)state;
    static const char *const names[] = {"<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|im_start|>",
                                        "</s>"};
    bytes file = read_needed(GOLDEN "llama-like.model.gz");
    for (uint32_t type = 0; type <= CCA_SPM_USER; type++) {
        if (type == CCA_SPM_UNKNOWN) continue;
        for (int original = 0; original < 2; original++) {
            cca_spm_model model = read_model(file);
            gguf_maker m;
            start_gguf(&m);
            put_text(&m, "tokenizer.ggml.model", "llama");
            if (original) put_original(&m, file);
            const int32_t n = (int32_t)model.n_pieces;
            if (!original) model.pieces[2].text.bytes = "<z>", model.pieces[2].text.size = 3;
            for (int k = 0; k < 4 + !original; k++) {
                cca_spm_piece piece = {{names[k], strlen(names[k])}, -1e4f, (cca_spm_type)type};
                assert_true(cca_spm_model_push(&model, piece));
            }
            put_lists(&m, &model, model.n_pieces, model.n_pieces, model.n_pieces);
            put_u32(&m, "tokenizer.ggml.eos_token_id", 1);
            put_array(&m, "cca.end_token_ids", CCA_GGUF_I32, 1); /* is no list of all */
            put_number(&m, 5, 4);
            cca_tokenizer *tok = finish(&m);
            for (int32_t k = 0; k < 4; k++) {
                assert_true(cca_tokenizer_is_control(tok, n + k));
                assert_int_equal(cca_tokenizer_is_end(tok, n + k), k < 3);
            }
            /* Markup that models write, too. */
            if (!original) {
                assert_int_equal(cca_tokenizer_is_end(tok, n + 4), type == CCA_SPM_CONTROL);
            }
            check_pieces(tok, "<|im_end|>a", CCA_ENCODE_SPECIAL,
                         original ? "<|im_end|>@0 a@10" : "<|im_end|>@0 ▁a@10");
            cca_tokens plain = encode(tok, "<|im_end|>", 10, 0);
            assert_true(plain.n > 1);
            cca_tokens_free(&plain);
            cca_tokenizer_close(tok);
            cca_spm_model_free(&model);
        }
    }
    free(file.p);
}

/* Of tokens without a type, in all or some places, those that keys name and bytes are known. */
static void test_missing_types(void **state) {
    const golden *g = *state;
    bytes file = read_needed(GOLDEN "llama-like.model.gz");
    cca_spm_model model = read_model(file);
    const size_t n = model.n_pieces;
    for (int undefined = 0; undefined < 2; undefined++) {
        gguf_maker m;
        start_gguf(&m);
        put_text(&m, "tokenizer.ggml.model", "llama");
        for (size_t i = 0; i < n && undefined; i++) {
            if (model.pieces[i].type != CCA_SPM_USER) model.pieces[i].type = CCA_SPM_UNDEFINED;
        }
        put_lists(&m, &model, n, n, undefined ? n : 0);
        put_u32(&m, "tokenizer.ggml.bos_token_id", 1);
        put_u32(&m, "tokenizer.ggml.eos_token_id", 2);
        put_u32(&m, "tokenizer.ggml.unknown_token_id", 0);
        cca_tokenizer *tok = finish(&m);
        assert_true(cca_tokenizer_is_control(tok, 1) && cca_tokenizer_is_control(tok, 2));
        assert_int_equal(cca_tokenizer_byte_token(tok, 'a') >= 0, 1);
        check_pieces(tok, "the<s>\u4e00", CCA_ENCODE_START | CCA_ENCODE_SPECIAL,
                     "▁the@0 <s>@3 ▁@6 <0xE4>@6 <0xB8>@7 <0x80>@8");
        if (undefined) check_ids(g, tok, "llama-like");
        cca_tokenizer_close(tok);
    }
    cca_spm_model_free(&model);
    free(file.p);
}

/* Where a space stands in front: as the key says, in files of others behind each control token, but
 * not with Mistral's from version 3 on. */
static void test_prefix(void **state) {
    (void)state;
    static const struct {
        const char *word, *third, *pieces;
    } cases[] = {
        {"first", NULL, "▁@0 ▁the@0 <s>@4 ▁the@7 </s>@10 t@14 he@15"},
        {"prepend", NULL, "▁@0 ▁the@0 <s>@4 ▁the@7 </s>@10 ▁the@14"},
        {"lead", NULL, "▁the@0 <s>@4 ▁the@7 </s>@10 ▁the@14"},
        {"lead-first", NULL, "▁the@0 <s>@4 t@7 he@8 </s>@10 t@14 he@15"},
        {NULL, NULL, "▁@0 ▁the@0 <s>@4 ▁the@7 </s>@10 ▁the@14"},
        {NULL, "[INST]", "▁@0 ▁the@0 <s>@4 ▁the@7 </s>@10 t@14 he@15"},
    };
    bytes file = read_needed(GOLDEN "llama-like.model.gz");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cca_spm_model model = read_model(file);
        gguf_maker m;
        start_gguf(&m);
        put_text(&m, "tokenizer.ggml.model", "llama");
        if (cases[i].third) {
            cca_spm_piece piece = {{cases[i].third, strlen(cases[i].third)}, 0, CCA_SPM_CONTROL};
            assert_true(cca_spm_model_push(&model, piece));
        }
        put_lists(&m, &model, model.n_pieces, model.n_pieces, model.n_pieces);
        put_u32(&m, "tokenizer.ggml.bos_token_id", 1);
        if (cases[i].word) put_text(&m, "cca.tokenizer.prefix", cases[i].word);
        cca_tokenizer *tok = finish(&m);
        check_pieces(tok, " the<s>the</s>the", CCA_ENCODE_START | CCA_ENCODE_SPECIAL,
                     cases[i].pieces);
        cca_tokens before = {.ids = (int32_t[]){2}, .n = 1};
        bool lead = i == 2, each = lead || i == 1 || i == 4;
        assert_int_equal(cca_tokenizer_leads(tok, &before, "the", 3, 0), each);
        assert_int_equal(cca_tokenizer_leads(tok, &before, " the", 4, 0), each && !lead);
        assert_true(cca_tokenizer_leads(tok, &before, " the", 4, CCA_ENCODE_SPACE));
        cca_tokenizer_close(tok);
        cca_spm_model_free(&model);
    }
    gguf_maker m;
    cca_spm_model model = read_model(file);
    start_gguf(&m);
    put_text(&m, "tokenizer.ggml.model", "llama");
    put_lists(&m, &model, model.n_pieces, model.n_pieces, model.n_pieces);
    put_text(&m, "cca.tokenizer.prefix", "prefix");
    refuse(&m, "cca.tokenizer.prefix is \"prefix\", none of first, prepend, lead and lead-first");
    cca_spm_model_free(&model);
    free(file.p);
}

/* With START, BOS that stands there already is the one that is written out. */
static void test_bos_once(void **state) {
    (void)state;
    bytes file = read_needed(GOLDEN "llama-like.model.gz");
    gguf_maker m;
    start_gguf(&m);
    put_original(&m, file);
    cca_tokenizer *tok = finish(&m);
    for (unsigned flags = CCA_ENCODE_SPECIAL; flags <= (CCA_ENCODE_SPECIAL | CCA_ENCODE_START);
         flags++) {
        cca_tokens tokens = {0};
        cca_error err;
        assert_true(cca_tokens_push(&tokens, 1, 0));
        assert_int_equal(cca_tokenizer_encode(&tokens, tok, "<s><s>", 6, flags, &err), CCA_OK);
        assert_int_equal(tokens.n, flags & CCA_ENCODE_START ? 2 : 3);
        cca_tokens_free(&tokens);
    }
    cca_tokenizer_close(tok);
    free(file.p);
}

static void test_without_tokenizer(void **state) {
    (void)state;
    gguf_maker m;
    start_gguf(&m);
    assert_null(finish(&m));
    start_gguf(&m);
    put_text(&m, "tokenizer.ggml.model", "no_vocab");
    assert_null(finish(&m));
}

static void test_refused_files(void **state) {
    (void)state;
    bytes file = read_needed(GOLDEN "llama-like.model.gz");
    cca_spm_model model = read_model(file);
    const size_t n = model.n_pieces;
    const size_t wrong[][3] = {{n, n - 1, n}, {n, n, n - 1}, {n - 1, n, n}, {0, 0, 0}};
    const char *const named[] = {"tokenizer.ggml.scores", "tokenizer.ggml.token_type",
                                 "tokenizer.ggml.token_type", "tokenizer.ggml.tokens"};
    for (size_t i = 0; i < 4; i++) {
        gguf_maker m;
        start_gguf(&m);
        put_text(&m, "tokenizer.ggml.model", "llama");
        put_lists(&m, &model, wrong[i][0], wrong[i][1], wrong[i][2]);
        refuse(&m, named[i]);
    }
    const char *const ids[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                               "tokenizer.ggml.eot_token_id", "tokenizer.ggml.unknown_token_id"};
    for (size_t i = 0; i < 4; i++) {
        gguf_maker m;
        start_gguf(&m);
        put_original(&m, file);
        put_u32(&m, ids[i], 640);
        refuse(&m, ids[i]);
    }
    gguf_maker m;
    start_gguf(&m);
    put_text(&m, "tokenizer.ggml.model", "bert");
    refuse(&m, "tokenizer.ggml.model is \"bert\"");
    start_gguf(&m);
    put_text(&m, "tokenizer.ggml.model", "gpt2");
    refuse(&m, "tokenizer.ggml.tokens");
    start_gguf(&m);
    put_text(&m, "tokenizer.ggml.model", "llama");
    refuse(&m, "tokenizer.ggml.tokens");
    start_gguf(&m);
    put_lists(&m, &model, n, n, n);
    refuse(&m, "tokenizer.ggml.model");
    start_gguf(&m);
    put_original(&m, file);
    put_lists(&m, &model, n - 1, n - 1, n - 1);
    refuse(&m, "tokenizer.ggml.tokens has 639");
    start_gguf(&m);
    put_original(&m, file);
    put_array(&m, "cca.end_token_ids", CCA_GGUF_I32, 1);
    put_number(&m, 0xffffffffu, 4);
    refuse(&m, "cca.end_token_ids");
    start_gguf(&m);
    put_u32(&m, "cca.tokenizer.sentencepiece", 1);
    refuse(&m, "cca.tokenizer.sentencepiece");
    start_gguf(&m);
    put_original(&m, (bytes){file.p, 100});
    refuse(&m, "cca.tokenizer.sentencepiece");
    cca_spm_model_free(&model);
    free(file.p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rebuilt),       cmocka_unit_test(test_rebuilt_llama2),
        cmocka_unit_test(test_llama2c),       cmocka_unit_test(test_original),
        cmocka_unit_test(test_padding),       cmocka_unit_test(test_without_tokenizer),
        cmocka_unit_test(test_refused_files), cmocka_unit_test(test_several_unknown),
        cmocka_unit_test(test_none),          cmocka_unit_test(test_known_names),
        cmocka_unit_test(test_missing_types), cmocka_unit_test(test_bos_once),
        cmocka_unit_test(test_prefix),
    };
    return cmocka_run_group_tests(tests, read_golden, free_golden);
}
