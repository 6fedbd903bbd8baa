/* The tokenizer against the ids of the Python package (tests/golden/tokenizer/make.py), and
 * against the text itself: round trip and offsets. */
#include "tokenizer_golden.h"

/* Each token's bytes stand in the text at its offset, the next token's behind them, to the end
 * of the text. Only the dummy prefix stands nowhere, and ▁ counts as a space. */
static void check_round_trip(const cca_tokenizer *tok, bytes text, unsigned flags) {
    cca_tokens tokens = encode(tok, text.p, text.size, flags);
    bool prefix = (flags & CCA_ENCODE_START) && cca_tokenizer_info(tok)->dummy_prefix;
    size_t at = 0;
    for (size_t i = 0; i < tokens.n; i++) {
        size_t size;
        const char *p = cca_tokenizer_bytes(&size, tok, tokens.ids[i], false);
        assert_int_equal(tokens.offsets[i], at);
        for (size_t k = 0; k < size; k++) {
            if (prefix && i == 0 && k == 0) {
                assert_int_equal(p[k], ' ');
            } else if (p[k] == ' ' && text.size - at >= 3 &&
                       memcmp(text.p + at, "\xe2\x96\x81", 3) == 0) {
                at += 3;
            } else {
                assert_true(at < text.size && text.p[at] == p[k]);
                at++;
            }
        }
    }
    assert_int_equal(at, text.size);
    cca_tokens_free(&tokens);
}

static void check_round_trips(const golden *g, const cca_tokenizer *tok) {
    for (unsigned flags = 0; flags <= CCA_ENCODE_START; flags++) {
        for (size_t i = 0; i < g->n; i++) check_round_trip(tok, g->texts[i], flags);
        check_round_trip(tok, g->large, flags);
    }
}

static void check_model(const golden *g, const char *name, bool exact) {
    bytes model = read_model_file(name, "model.gz");
    cca_tokenizer *tok = open_model(model);
    free(model.p); /* nothing of it is kept */
    check_ids(g, tok, name);
    if (exact) check_round_trips(g, tok);
    cca_tokenizer_close(tok);
}

static void test_texts(void **state) {
    const golden *g = *state;
    assert_in_range(g->n, 200, MAX_TEXTS);
    assert_true(g->large.size > 200000);
}

static void test_llama_like(void **state) {
    check_model(*state, "llama-like", true);
}

static void test_blanks(void **state) {
    check_model(*state, "blanks", true);
}

static void test_phrases(void **state) {
    check_model(*state, "phrases", true);
}

static void test_unigram(void **state) {
    check_model(*state, "unigram", true);
}

static void test_nfkc(void **state) {
    check_model(*state, "nfkc", false);
}

/* Where normalisation leaves words of ASCII alone, offsets still point at them. */
static void test_nfkc_offsets(void **state) {
    const golden *g = *state;
    bytes model = read_needed(GOLDEN "nfkc.model.gz"), text = g->large;
    cca_tokenizer *tok = open_model(model);
    cca_tokens tokens = encode(tok, text.p, text.size, CCA_ENCODE_START);
    size_t n_checked = 0;
    uint64_t last = 0;
    for (size_t i = 0; i < tokens.n; i++) {
        size_t size;
        const char *p = cca_tokenizer_bytes(&size, tok, tokens.ids[i], false);
        uint64_t at = tokens.offsets[i];
        assert_true(at >= last && at < text.size);
        last = at;
        if (size < 3 || p[0] != ' ' || text.p[at] != ' ' || (unsigned char)text.p[at + 1] <= ' ') {
            continue;
        }
        if (((unsigned char)p[1] | (unsigned char)text.p[at + 1]) >= 0x80) continue;
        assert_int_equal(text.p[at + 1], p[1]);
        n_checked++;
    }
    assert_true(n_checked > 2000);
    cca_tokens_free(&tokens);
    cca_tokenizer_close(tok);
    free(model.p);
}

static void test_llama2(void **state) {
    const golden *g = *state;
    bytes model = read_file(SHARED "llama2-tokenizer.model");
    if (!model.p) {
        puts("SKIP test_llama2: no " SHARED "llama2-tokenizer.model");
        return;
    }
    cca_tokenizer *tok = open_model(model);
    const cca_tokenizer_facts *f = cca_tokenizer_info(tok);
    assert_string_equal(f->kind, "sentencepiece");
    assert_int_equal(f->vocab_size, 32000);
    assert_true(f->unk == 0 && f->bos == 1 && f->eos == 2 && f->pad == -1);
    assert_true(f->add_bos && f->dummy_prefix);
    check_ids(g, tok, "llama2");
    check_round_trips(g, tok);
    cca_tokenizer_close(tok);
    free(model.p);
}

/* ---- tokens ---- */

static void test_vocabulary(void **state) {
    (void)state;
    bytes model = read_needed(GOLDEN "blanks.model.gz");
    cca_tokenizer *tok = open_model(model);
    const cca_tokenizer_facts *f = cca_tokenizer_info(tok);
    assert_int_equal(f->vocab_size, 640);
    assert_true(f->unk == 0 && f->bos == 1 && f->eos == 2 && f->pad == 3 && !f->dummy_prefix);
    check_bytes(tok, 0, false, " \xe2\x81\x87 ");
    check_bytes(tok, 0, true, "<unk>");
    check_bytes(tok, 1, false, "");
    check_bytes(tok, 1, true, "<s>");
    check_bytes(tok, -1, true, "");
    check_bytes(tok, 640, true, "");
    assert_string_equal(cca_tokenizer_piece(tok, 2), "</s>");
    assert_string_equal(cca_tokenizer_piece(tok, 640), "");
    assert_true(cca_tokenizer_is_control(tok, 1) && !cca_tokenizer_is_control(tok, 0));
    assert_false(cca_tokenizer_is_control(tok, -5));
    assert_true(cca_tokenizer_is_end(tok, 2) && !cca_tokenizer_is_end(tok, 1));
    assert_false(cca_tokenizer_is_end(tok, -1));
    for (int byte = 0; byte < 256; byte++) {
        char expected[8];
        size_t size;
        int32_t id = cca_tokenizer_byte_token(tok, (uint8_t)byte);
        const char *p = cca_tokenizer_bytes(&size, tok, id, false);
        assert_true(size == 1 && (uint8_t)*p == byte);
        (void)snprintf(expected, sizeof expected, "<0x%02X>", (unsigned)byte);
        assert_string_equal(cca_tokenizer_piece(tok, id), expected);
    }
    cca_tokenizer_close(tok);
    cca_tokenizer_close(NULL);
    free(model.p);
}

static int32_t find_piece(const cca_tokenizer *tok, const char *piece) {
    for (int32_t id = 0; id < cca_tokenizer_info(tok)->vocab_size; id++) {
        if (strcmp(cca_tokenizer_piece(tok, id), piece) == 0) return id;
    }
    fail_msg("no piece %s", piece);
    return -1;
}

static void test_special(void **state) {
    (void)state;
    bytes model = read_needed(GOLDEN "blanks.model.gz");
    cca_tokenizer *tok = open_model(model);
    enum { SPECIAL = CCA_ENCODE_SPECIAL };
    check_pieces(tok, "<ctl>", SPECIAL, "<ctl>@0");
    check_pieces(tok, "a<ctl><ctl>b", SPECIAL, "a@0 <ctl>@1 <ctl>@6 b@11");
    check_pieces(tok, "<s></s>a<|eot_id|>", SPECIAL, "<s>@0 </s>@3 a@7 <|eot_id|>@8");
    check_pieces(tok, "<<ctl>", SPECIAL, "<@0 <ctl>@1");
    check_pieces(tok, "a======", SPECIAL, "a@0 =====@1 =@6"); /* the longest first */
    check_pieces(tok, "a======", 0, "a@0 =====@1 =@6");       /* user-defined: always */
    check_pieces(tok, "<sep>", 0, "<sep>@0");
    check_pieces(tok, "", SPECIAL, "");
    cca_tokens plain = encode(tok, "<ctl></s><unk>", 14, 0);
    for (size_t i = 0; i < plain.n; i++) {
        assert_false(cca_tokenizer_is_control(tok, plain.ids[i]));
        assert_int_not_equal(plain.ids[i], 0);
    }
    cca_tokens_free(&plain);
    /* NUL ends nothing. */
    cca_tokens tokens = encode(tok, "a\0<ctl>\0", 8, SPECIAL);
    assert_int_equal(tokens.n, 4);
    assert_int_equal(tokens.ids[2], find_piece(tok, "<ctl>"));
    assert_int_equal(tokens.ids[3], cca_tokenizer_byte_token(tok, 0));
    assert_int_equal(tokens.offsets[3], 7);
    cca_tokens_free(&tokens);
    cca_tokenizer_close(tok);
    free(model.p);
}

static void test_dummy_prefix(void **state) {
    (void)state;
    bytes model = read_needed(GOLDEN "llama-like.model.gz");
    cca_tokenizer *tok = open_model(model);
    enum { START = CCA_ENCODE_START, SPECIAL = CCA_ENCODE_SPECIAL };
    check_pieces(tok, "the", START, "▁the@0");
    check_pieces(tok, "the", 0, "t@0 he@1");
    check_pieces(tok, " the", 0, "▁the@0");
    check_pieces(tok, "the the", CCA_ENCODE_SPACE, "▁the@0 ▁the@3");
    check_pieces(tok, "the</s>the", CCA_ENCODE_SPACE | SPECIAL, "▁the@0 </s>@3 t@7 he@8");
    check_pieces(tok, "", CCA_ENCODE_SPACE, "▁@0");
    check_pieces(tok, "the</s>the", START | SPECIAL, "▁the@0 </s>@3 t@7 he@8");
    /* BOS written out does not use the start up, other tokens do. */
    check_pieces(tok, "<s>the", START | SPECIAL, "<s>@0 ▁the@3");
    check_pieces(tok, "</s>the", START | SPECIAL, "</s>@0 t@4 he@5");
    check_pieces(tok, "\u00e9\u4e00", 0, "é@0 <0xE4>@2 <0xB8>@3 <0x80>@4");
    cca_tokenizer_close(tok);
    free(model.p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),        cmocka_unit_test(test_llama_like),
        cmocka_unit_test(test_blanks),       cmocka_unit_test(test_phrases),
        cmocka_unit_test(test_unigram),      cmocka_unit_test(test_nfkc),
        cmocka_unit_test(test_nfkc_offsets), cmocka_unit_test(test_llama2),
        cmocka_unit_test(test_vocabulary),   cmocka_unit_test(test_special),
        cmocka_unit_test(test_dummy_prefix),
    };
    return cmocka_run_group_tests(tests, read_golden, free_golden);
}
