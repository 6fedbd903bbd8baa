/* Models of SentencePiece that are wrong or damaged: an error, never a crash or noise. */
#include "tokenizer_golden.h"

#include <unistd.h>

static void refuse_pieces(cca_spm_model *model, const char *named) {
    cca_error err = {.text = ""};
    cca_status status = cca_spm_model_check(model, "made", &err);
    cca_spm *spm = NULL;
    if (!status) status = cca_spm_open(&spm, model, "made", &err);
    assert_int_equal(status, CCA_BAD_MODEL);
    assert_null(spm);
    if (!strstr(err.text, named)) fail_msg("\"%s\" does not say %s", err.text, named);
    cca_spm_model_free(model);
}

static cca_spm_model model_of(size_t n, const cca_spm_piece *pieces) {
    cca_spm_model model;
    cca_spm_model_init(&model);
    for (size_t i = 0; i < n; i++) assert_true(cca_spm_model_push(&model, pieces[i]));
    return model;
}

/* Empty pieces of any type stand in no text; so does what they are called in the library. */
static void test_empty_pieces(void **state) {
    (void)state;
    const cca_spm_piece pieces[] = {{{"<unk>", 5}, 0, CCA_SPM_UNKNOWN},
                                    {{"a", 1}, -1, CCA_SPM_NORMAL},
                                    {{"", 0}, 0, CCA_SPM_NORMAL},
                                    {{"", 0}, 0, CCA_SPM_USER},
                                    {{"b", 1}, -2, CCA_SPM_NORMAL}};
    cca_spm_model model = model_of(5, pieces);
    cca_spm *spm;
    cca_tokens tokens = {0};
    cca_error err;
    model.add_dummy_prefix = false;
    assert_int_equal(cca_spm_model_check(&model, "test", &err), CCA_OK);
    if (cca_spm_open(&spm, &model, "test", &err) != CCA_OK) fail_msg("%s", err.text);
    assert_int_equal(cca_spm_encode(&tokens, spm, "ab\xef\xb7\x90", 5, 0, false, &err), CCA_OK);
    const int32_t want[] = {1, 4, 0};
    assert_int_equal(tokens.n, 3);
    assert_memory_equal(tokens.ids, want, sizeof want);
    cca_tokens_free(&tokens);
    cca_spm_close(spm);
    cca_spm_model_free(&model);
}

static void test_refused_pieces(void **state) {
    (void)state;
    const cca_spm_piece unk = {{"<unk>", 5}, 0, CCA_SPM_UNKNOWN};
    const cca_spm_piece a = {{"a", 1}, 0, CCA_SPM_NORMAL};
    const cca_spm_piece endless = {{"b", 1}, strtof("inf", NULL), CCA_SPM_NORMAL};
    const cca_spm_piece nul = {{"a\0b", 3}, 0, CCA_SPM_USER};
    const cca_spm_piece byte = {{"<0x0A>", 6}, 0, CCA_SPM_BYTE};
    const cca_spm_piece no_byte = {{"<0x0a>", 6}, 0, CCA_SPM_BYTE};
    cca_spm_model model = model_of(0, NULL);
    refuse_pieces(&model, "0 pieces");
    model = model_of(1, (cca_spm_piece[]){a});
    refuse_pieces(&model, "no unknown piece");
    model = model_of(2, (cca_spm_piece[]){unk, unk});
    refuse_pieces(&model, "piece 0 and piece 1");
    model = model_of(3, (cca_spm_piece[]){unk, a, a});
    refuse_pieces(&model, "already defined");
    model = model_of(3, (cca_spm_piece[]){unk, a, endless});
    refuse_pieces(&model, "score of piece 2");
    model = model_of(3, (cca_spm_piece[]){unk, a, nul});
    refuse_pieces(&model, "NUL");
    model = model_of(2, (cca_spm_piece[]){unk, no_byte});
    refuse_pieces(&model, "<0x0A>");
    model = model_of(2, (cca_spm_piece[]){unk, byte});
    refuse_pieces(&model, "byte pieces");
    model = model_of(2, (cca_spm_piece[]){unk, byte});
    model.byte_fallback = true;
    refuse_pieces(&model, "1 byte pieces");
    model = model_of(2, (cca_spm_piece[]){unk, a});
    model.charsmap = (cca_spm_text){"\xff\xff\xff\x7f", 5};
    refuse_pieces(&model, "rules of normalisation");
    char many[100];
    memset(many, 'x', sizeof many);
    model = model_of(1, &unk);
    for (size_t i = 1; i <= 65; i++) {
        assert_true(cca_spm_model_push(&model, (cca_spm_piece){{many, i}, 0, CCA_SPM_USER}));
    }
    refuse_pieces(&model, "user-defined");
}

/* ---- damaged models ---- */

/* Loads; where that succeeds, what loaded must also encode, or say that it cannot. */
static bool survives(const golden *g, const char *p, size_t size) {
    cca_tokenizer *tok;
    cca_error err = {.text = ""};
    cca_status status = cca_tokenizer_from_sentencepiece(&tok, p, size, "damaged", &err);
    if (status) {
        assert_int_equal(status, CCA_BAD_MODEL);
        assert_null(tok);
        assert_int_equal(strncmp(err.text, "damaged: ", 9), 0);
        return false;
    }
    cca_tokens tokens = {0};
    for (size_t i = 0; i < g->n; i += 9) {
        status = cca_tokenizer_encode(&tokens, tok, g->texts[i].p, g->texts[i].size, 3, &err);
        assert_true(!status || status == CCA_BAD_MODEL);
    }
    cca_tokens_free(&tokens);
    cca_tokenizer_close(tok);
    return true;
}

static void damage(const golden *g, const char *path, size_t cut_step, size_t flip_step) {
    bytes model = read_needed(path);
    assert_true(survives(g, model.p, model.size));
    /* The last two bytes are an empty message that nothing needs. */
    for (size_t size = 0; size < model.size - 2; size += cut_step) {
        assert_false(survives(g, model.p, size));
    }
    for (size_t at = 0, bit = 0; at < model.size; at += flip_step, bit = (bit + 3) % 8) {
        model.p[at] ^= (char)(1 << bit);
        survives(g, model.p, model.size);
        model.p[at] ^= (char)(1 << bit);
    }
    free(model.p);
}

/* Neither do they make SentencePiece write to stderr. */
static void test_damaged(void **state) {
    int saved = dup(STDERR_FILENO);
    FILE *noise = tmpfile();
    assert_true(saved >= 0 && noise);
    (void)fflush(stderr);
    dup2(fileno(noise), STDERR_FILENO);
    damage(*state, GOLDEN "llama-like.model.gz", 3, 11);
    damage(*state, GOLDEN "unigram.model.gz", 3, 31);
    damage(*state, GOLDEN "blanks.model.gz", 7, 31);
    damage(*state, GOLDEN "nfkc.model.gz", 997, 1999);
    (void)fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    (void)fseek(noise, 0, SEEK_END);
    assert_int_equal(ftell(noise), 0);
    (void)fclose(noise);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_pieces),
        cmocka_unit_test(test_refused_pieces),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, read_golden, free_golden);
}
