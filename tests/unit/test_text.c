/* Folders that transformers wrote, tokenizers and all (tests/golden/models/make_text.py): the same
 * ids, and the same 50 greedy tokens. Their logits are test_model.c's. Then what of a
 * tokenizer.json is refused. */
#include "engine.h"
#include "export/model_file.h"
#include "export/vocab_read.h"
#include "tests/unit/test.h"
#include "text/spm.h"

#include <unistd.h>

typedef struct folder {
    const char *name, *kind;
    bool add_bos;
    int32_t bos, eos, ends[2]; /* -1: none */
} folder;

/* ---- golden files -------------------------------------------------------------------- */

typedef struct golden {
    uint8_t *bytes;
    const uint8_t *at;
} golden;

static golden read_golden(const char *name) {
    enum { MOST = 1 << 20 };
    char path[256];
    snprintf(path, sizeof path, "tests/golden/models/%s/text.bin", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    golden g = {.bytes = malloc(MOST)};
    assert_non_null(g.bytes);
    assert_in_range(fread(g.bytes, 1, MOST, file), 1, MOST - 1);
    fclose(file);
    g.at = g.bytes;
    return g;
}

static uint32_t take_u32(golden *g) {
    uint32_t value;
    memcpy(&value, g->at, sizeof value);
    g->at += sizeof value;
    return value;
}

/* A list of ids, to be freed. */
static int32_t *take_ids(golden *g, size_t *n) {
    *n = take_u32(g);
    int32_t *ids = malloc((*n + 1) * sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < *n; i++, g->at += 2) ids[i] = g->at[0] | g->at[1] << 8;
    return ids;
}

/* ---- folders ------------------------------------------------------------------------- */

static cca_engine *export_and_open(const char *name) {
    char input[256], output[] = "/tmp/cca-test-text-XXXXXX";
    cca_error err;
    cca_engine *engine;
    int file = mkstemp(output);
    assert_true(file >= 0);
    close(file);
    snprintf(input, sizeof input, "tests/golden/models/%s", name);
    cca_export_options o = {.input = input, .output = output};
    if (cca_export(&o, &err) != CCA_OK) fail_msg("%s: %s", name, err.text);
    cca_engine_options eo = {.device = "cpu", .n_threads = 2};
    if (cca_engine_open(&engine, output, &eo, &err) != CCA_OK) fail_msg("%s: %s", name, err.text);
    unlink(output);
    return engine;
}

static void check_ids(const cca_tokens *tokens, const int32_t *ids, size_t n, const char *name) {
    for (size_t i = 0; i < n && i < tokens->n; i++) {
        if (tokens->ids[i] != ids[i]) {
            fail_msg("%s: token %zu, offset %llu, is %d, not %d", name, i,
                     (unsigned long long)tokens->offsets[i], tokens->ids[i], ids[i]);
        }
    }
    assert_int_equal(tokens->n, n);
}

/* The bytes of the ids are the text again, and stand where the offsets say. */
static void check_round_trip(const cca_tokenizer *tok, const cca_tokens *tokens, const char *text,
                             size_t size) {
    size_t at = 0, n;
    for (size_t i = 0; i < tokens->n; i++) {
        const char *bytes = cca_tokenizer_bytes(&n, tok, tokens->ids[i], true);
        assert_int_equal(tokens->offsets[i], at);
        assert_true(n <= size - at);
        assert_memory_equal(bytes, text + at, n);
        at += n;
    }
    assert_int_equal(at, size);
}

static void check_texts(const folder *f, const cca_tokenizer *tok, golden *g) {
    for (uint32_t left = take_u32(g); left > 0; left--) {
        unsigned flags = take_u32(g) ? CCA_ENCODE_START | CCA_ENCODE_SPECIAL : CCA_ENCODE_START;
        size_t size = take_u32(g), n;
        const char *text = (const char *)g->at;
        g->at += size;
        int32_t *ids = take_ids(g, &n);
        cca_tokens tokens = {0};
        cca_error err;
        if (cca_tokenizer_encode(&tokens, tok, text, size, flags, &err) != CCA_OK) {
            fail_msg("%s: %s", f->name, err.text);
        }
        check_ids(&tokens, ids, n, f->name);
        bool changed = /* by NFC, or ▁ into spaces */
            strcmp(f->kind, "bpe") != 0 || strcmp(f->name, "hf-text-qwen2") == 0;
        if (!changed) check_round_trip(tok, &tokens, text, size);
        cca_tokens_free(&tokens);
        free(ids);
    }
}

static void check_facts(const folder *f, const cca_tokenizer *tok) {
    const cca_tokenizer_facts *facts = cca_tokenizer_info(tok);
    assert_string_equal(facts->kind, f->kind);
    assert_int_equal(facts->add_bos, f->add_bos);
    assert_int_equal(facts->bos, f->bos);
    assert_int_equal(facts->eos, f->eos);
    for (int32_t i = 0; i < facts->vocab_size; i++) {
        assert_int_equal(cca_tokenizer_is_end(tok, i), i == f->ends[0] || i == f->ends[1]);
    }
    for (int byte = 1; byte < 0x80; byte++) {
        size_t size;
        int32_t id = cca_tokenizer_byte_token(tok, (uint8_t)byte);
        assert_true(id >= 0);
        assert_int_equal((uint8_t)*cca_tokenizer_bytes(&size, tok, id, false), byte);
        assert_int_equal(size, 1);
    }
}

/* The start of the first text with what the tokenizer puts in front is the prompt; what follows
 * is greedy. */
static void check_greedy(const folder *f, cca_engine *engine, golden *g) {
    const cca_tokenizer_facts *facts = cca_tokenizer_info(cca_engine_tokenizer(engine));
    size_t n, n_greedy;
    int32_t *prompt = take_ids(g, &n), *greedy = take_ids(g, &n_greedy);
    assert_int_equal(n_greedy, 50);
    assert_int_equal(facts->add_bos, prompt[0] == facts->bos);
    cca_session_options o = cca_session_defaults();
    o.ctx_size = (int64_t)(n + n_greedy);
    o.attn = "full";
    o.k_type = o.v_type = "f32";
    cca_session *session;
    cca_error err;
    if (cca_session_new(&session, engine, &o, &err) != CCA_OK) fail_msg("%s", err.text);
    cca_status status = cca_session_eval(session, prompt, (int64_t)n, NULL, &err);
    for (size_t i = 0; i < n_greedy && !status; i++) {
        const float *logits = cca_session_logits(session, &err);
        int32_t best = 0;
        for (int32_t id = 1; id < cca_engine_info(engine)->vocab_size; id++) {
            if (logits[id] > logits[best]) best = id;
        }
        if (best != greedy[i]) fail_msg("%s: token %zu is %d, not %d", f->name, i, best, greedy[i]);
        status = cca_session_eval(session, &best, 1, NULL, &err);
    }
    if (status) fail_msg("%s", err.text);
    cca_session_free(session);
    free(prompt);
    free(greedy);
}

static void equals_transformers(void **state) {
    const folder *f = *state;
    golden g = read_golden(f->name);
    cca_engine *engine = export_and_open(f->name);
    const cca_tokenizer *tok = cca_engine_tokenizer(engine);
    assert_non_null(tok);
    check_facts(f, tok);
    check_texts(f, tok, &g);
    check_greedy(f, engine, &g);
    cca_engine_close(engine);
    free(g.bytes);
}

/* ---- what is refused ----------------------------------------------------------------- */

#define METASPACE                                                                                  \
    "{\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\", \"prepend_scheme\": \"first\", " \
    "\"split\": false}"
#define BYTE_LEVEL   "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}"
#define DIGITS       "{\"type\": \"Digits\", \"individual_digits\": true}"
#define SMOLLM       "{\"type\": \"Sequence\", \"pretokenizers\": [" DIGITS ", " BYTE_LEVEL "]}"
#define BYTES(MODEL) "{\"pre_tokenizer\": " SMOLLM ", \"model\": {\"type\": \"BPE\", " MODEL "}}"
#define ADDED(TOKEN)                                                                               \
    "{\"pre_tokenizer\": " SMOLLM ", \"added_tokens\": [" TOKEN                                    \
    "], \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}"
#define PIECES(MODEL)                                                                              \
    "{\"pre_tokenizer\": " METASPACE ", \"model\": {\"type\": \"BPE\", \"byte_fallback\": true, "  \
    "\"unk_token\": \"u\", " MODEL "}}"

static cca_status open_text(cca_vocab *vocab, const char *text, cca_error *err) {
    char path[] = "/tmp/cca-test-text-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, text, strlen(text)), strlen(text));
    close(file);
    cca_status status = cca_vocab_open(vocab, path, err);
    vocab->path = NULL; /* of this function */
    unlink(path);
    return status;
}

static void the_rest_is_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{}", "model.type is \"\""},
        {"{\"model\": 3}", "model is no object"},
        {"{\"model\": {\"type\": \"Unigram\"}}", "model.type is \"Unigram\""},
        {"{\"model\": {\"type\": \"BPE\"}}", "pre_tokenizer has no ByteLevel"},
        {"{\"pre_tokenizer\": " BYTE_LEVEL ", \"model\": {\"type\": \"BPE\", \"byte_fallback\": "
         "true}}",
         "pre_tokenizer has a ByteLevel, and model.byte_fallback is true"},
        {"{\"pre_tokenizer\": {\"type\": \"UnicodeScripts\"}, \"model\": {\"type\": \"BPE\"}}",
         "pre_tokenizer: \"UnicodeScripts\" is not supported"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\"}, \"model\": {\"type\": \"BPE\"}}",
         "pre_tokenizer: Split without a pattern"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Other\", \"pattern\": {\"String\": \"a\"}}, \"model\": {\"type\": \"BPE\"}}",
         "behavior \"Other\" is not known"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"\\\\h+\"}}, \"model\": {\"type\": \"BPE\"}}",
         "has an escape that is not known"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"\\\\p{Greek}\"}}, \"model\": {\"type\": \"BPE\"}}",
         "has a property other than"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"\\\\p{Mn}\"}}, \"model\": {\"type\": \"BPE\"}}",
         "has a property other than"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"[a&&b]\"}}, \"model\": {\"type\": \"BPE\"}}",
         "has && in a set"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"[^\\\\W]\"}}, \"model\": {\"type\": \"BPE\"}}",
         "or \\P in a set"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"[[:alpha:]]\"}}, \"model\": {\"type\": \"BPE\"}}",
         "[:…:] in a set"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"[a\"}}, \"model\": {\"type\": \"BPE\"}}",
         "a set without end"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"(?<n>a)\"}}, \"model\": {\"type\": \"BPE\"}}",
         "has a group that is not"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"(*UTF)a\"}}, \"model\": {\"type\": \"BPE\"}}",
         "has a group that is not"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"a{2}+\"}}, \"model\": {\"type\": \"BPE\"}}",
         "has {,n}, {…}? or {…}+"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"a{,2}\"}}, \"model\": {\"type\": \"BPE\"}}",
         "has {,n}, {…}? or {…}+"},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"(a\"}}, \"model\": {\"type\": \"BPE\"}}",
         "the pattern \"(a\": missing closing"},
        {"{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"prepend_scheme\": \"last\"}, \"model\": {\"type\": \"BPE\"}}",
         "prepend_scheme \"last\""},
        {"{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"WhitespaceSplit\"}, {\"type\": \"ByteLevel\", \"add_prefix_space\": true}]}, \"model\": {\"type\": \"BPE\"}}",
         "a part that changes the text behind one that cuts it"},
        {"{\"normalizer\": {\"type\": \"Precompiled\"}, \"model\": {\"type\": \"BPE\"}}",
         "normalizer: \"Precompiled\" is not supported"},
        {"{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"StripAccents\"}]}, \"model\": {\"type\": \"BPE\"}}",
         "normalizer: \"StripAccents\" is not supported"},
        {"{\"normalizer\": {\"type\": \"Prepend\"}, \"model\": {\"type\": \"BPE\"}}",
         "Prepend has no prepend"},
        {"{\"normalizer\": {\"type\": \"Replace\", \"content\": \"a\"}, \"model\": {\"type\": \"BPE\"}}",
         "Replace without a pattern"},
        {"{\"decoder\": {\"type\": \"Fuse\"}, \"pre_tokenizer\": " SMOLLM
         ", \"model\": {\"type\": \"BPE\"}}",
         "decoder: \"Fuse\" does not go with its ByteLevel"},
        {BYTES("\"dropout\": 0.1"), "model.dropout"},
        {BYTES("\"vocab\": {\"a\": 0}, \"merges\": [], \"unk_token\": \"a\", \"fuse_unk\": true"),
         "model.fuse_unk is true, and no token is the byte 0x00"},
        {BYTES("\"end_of_word_suffix\": \"x\""), "model.end_of_word_suffix"},
        {BYTES("\"vocab\": {}"), "model.vocab has 0 tokens"},
        {BYTES("\"vocab\": {\"a\": 1}"), "the id of \"a\" is none of 0 … 0"},
        {BYTES("\"vocab\": {\"a\": \"b\"}"), "the id of \"a\""},
        {BYTES("\"vocab\": {\"a\": 0, \"b\": 0}"), "\"a\" and \"b\" both have the id 0"},
        {BYTES("\"vocab\": {\"a\": 0}"), "model.merges is no list"},
        {BYTES("\"vocab\": {\"a\": 0}, \"merges\": [\"aa\"]"), "model.merges: element 0"},
        {BYTES("\"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]"), "model.merges: element 0"},
        {BYTES("\"vocab\": {\"a\": 0}, \"merges\": [[\"a\", \"a\", \"a\"]]"), "element 0"},
        {ADDED("{\"id\": 0, \"content\": \"b\"}"), "\"b\" has the id 0, which is \"a\""},
        {ADDED("{\"id\": 2, \"content\": \"b\"}"), "the id of \"b\""},
        {ADDED("{\"id\": 1}"), "a token without content"},
        {PIECES("\"vocab\": {\"u\": 0, \"a\": 1}, \"merges\": [[\"a\", \"a\"]]"),
         "no token is <0x00>"},
        {PIECES("\"vocab\": {\"u\": 0, \"a b\": 1}, \"merges\": [[\"a b\", \"a\"]]"),
         "has a space"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cca_vocab vocab;
        cca_error err = {.text = ""};
        if (open_text(&vocab, cases[i].text, &err) != CCA_BAD_MODEL ||
            !strstr(err.text, cases[i].message)) {
            fail_msg("case %zu: \"%s\", not \"%s\"", i, err.text, cases[i].message);
        }
        cca_vocab_close(&vocab);
    }
}

static void ranks_become_scores(void **state) {
    (void)state;
    cca_vocab vocab;
    cca_error err = {.text = ""};
    cca_status status = open_text(
        &vocab,
        PIECES("\"vocab\": {\"u\": 0, \"a\": 1, \"b\": 2, \"<0x41>\": 3, \"ab\": 4, \"aba\": 5, "
               "\"ba\": 6}, \"merges\": [\"b a\", [\"a\", \"ba\"], \"ab a\", \"a b\"]"),
        &err);
    if (status) fail_msg("%s", err.text);
    static const int scores[] = {-4, -4, -4, -4, -3, -1, 0};
    static const int32_t types[] = {CCA_SPM_UNKNOWN, CCA_SPM_NORMAL, CCA_SPM_NORMAL, CCA_SPM_BYTE,
                                    CCA_SPM_NORMAL,  CCA_SPM_NORMAL, CCA_SPM_NORMAL};
    assert_int_equal(vocab.n, 7);
    for (int i = 0; i < 7; i++) assert_int_equal((int)vocab.scores[i], scores[i]);
    assert_memory_equal(vocab.types, types, sizeof types);
    assert_true(vocab.dummy_prefix);
    cca_vocab_close(&vocab);
}

/* ---- tokens of the files beside ------------------------------------------------------- */

static void write_file(const char *dir, const char *name, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fputs(text, file) < 0, false);
    assert_int_equal(fclose(file), 0);
}

/* A tokenizer.json of the one token "a" in a folder with another file, which may be empty. */
static cca_status open_beside(cca_vocab *vocab, const char *name, const char *text,
                              cca_error *err) {
    char dir[] = "/tmp/cca-test-beside-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    write_file(dir, "tokenizer.json", BYTES("\"vocab\": {\"a\": 0}, \"merges\": []"));
    write_file(dir, name, text);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    cca_status status = cca_vocab_open(vocab, path, err);
    vocab->path = NULL; /* of this function */
    unlink(path);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
    assert_int_equal(rmdir(dir), 0);
    return status;
}

enum { MOST_BEHIND = 65536 }; /* ids behind the vocabulary, which has one */

static void ids_far_behind_the_vocabulary_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *name, *text;
        cca_status status;
    } cases[] = {
        {"added_tokens.json", "{\"<x>\": 65536}", CCA_OK},
        {"added_tokens.json", "{\"<x>\": 65537}", CCA_BAD_MODEL},
        {"added_tokens.json", "{\"<x>\": -1}", CCA_BAD_MODEL},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"65536\": {\"content\": \"<x>\"}}}",
         CCA_OK},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"65537\": {\"content\": \"<x>\"}}}",
         CCA_BAD_MODEL},
        {"tokenizer_config.json",
         "{\"added_tokens_decoder\": {\"16777215\": {\"content\": \"<x>\"}}}", CCA_BAD_MODEL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cca_vocab vocab;
        cca_error err = {.text = ""};
        char named[128];
        cca_status status = open_beside(&vocab, cases[i].name, cases[i].text, &err);
        assert_int_equal(status, cases[i].status);
        snprintf(named, sizeof named, "/%s: added_tokens: the id of \"<x>\" is none of 0 … 65536",
                 cases[i].name);
        if (status) {
            assert_non_null(strstr(err.text, named));
        } else {
            assert_int_equal(vocab.n, 1 + MOST_BEHIND);
            assert_string_equal(vocab.pieces[MOST_BEHIND].bytes, "<x>");
            assert_null(vocab.pieces[MOST_BEHIND - 1].bytes);
        }
        cca_vocab_close(&vocab);
    }
}

/* Ids up to the last one, one by one: all are there, and arrays are moved a few times only. */
static void tokens_are_added_one_by_one(void **state) {
    (void)state;
    enum { ROOM = 24 };
    size_t size = 0, room = (size_t)MOST_BEHIND * ROOM;
    char *text = malloc(room);
    assert_non_null(text);
    for (int i = 1; i <= MOST_BEHIND; i++) {
        size +=
            (size_t)snprintf(text + size, room - size, "%s\"<%d>\": %d", i > 1 ? "," : "{", i, i);
    }
    memcpy(text + size, "}", 2);
    cca_vocab vocab;
    cca_error err = {.text = ""};
    cca_status status = open_beside(&vocab, "added_tokens.json", text, &err);
    free(text);
    if (status) fail_msg("%s", err.text);
    assert_int_equal(vocab.n, 1 + MOST_BEHIND);
    assert_in_range(vocab.capacity, vocab.n, 2 * vocab.n);
    assert_string_equal(vocab.pieces[0].bytes, "a");
    assert_int_equal(vocab.types[0], CCA_SPM_NORMAL);
    for (int i = 1; i <= MOST_BEHIND; i++) {
        char name[16];
        snprintf(name, sizeof name, "<%d>", i);
        assert_string_equal(vocab.pieces[i].bytes, name);
        assert_int_equal(vocab.types[i], CCA_SPM_USER);
        assert_int_equal((int)vocab.scores[i], 0);
    }
    cca_vocab_close(&vocab);
}

/* Where room is made: rarely, and what is new is empty. */
static void room_grows_with_what_is_there(void **state) {
    (void)state;
    cca_vocab vocab = {.path = "a test"};
    cca_error err;
    int n_moved = 0;
    assert_int_equal(cca_vocab_alloc(&vocab, 1, &err), CCA_OK);
    vocab.n = 1;
    for (int64_t n = 2; n <= 10000; n++) {
        const cca_gguf_string *before = vocab.pieces;
        int64_t capacity = vocab.capacity;
        assert_int_equal(cca_vocab_grow(&vocab, n, &err), CCA_OK);
        assert_int_equal(vocab.n, n);
        n_moved += vocab.capacity != capacity;
        assert_true(vocab.capacity != capacity || vocab.pieces == before);
        assert_null(vocab.pieces[n - 1].bytes);
        vocab.pieces[n - 1] = (cca_gguf_string){"x", 1};
    }
    assert_int_equal(n_moved, 14);
    assert_int_equal(cca_vocab_grow(&vocab, 5, &err), CCA_OK);
    assert_int_equal(vocab.n, 10000);
    cca_vocab_close(&vocab);
}

int main(void) {
    static folder folders[] = {
        {"hf-text-llama3", "bpe", true, 600, 601, {601, 602}},
        {"hf-text-qwen2", "bpe", false, -1, 600, {600, 602}},
        {"hf-text-smollm", "bpe", false, 0, 0, {0, 2}},
        {"hf-text-llama2", "sentencepiece", true, 1, 2, {2, -1}},
        {"hf-text-metaspace", "sentencepiece", false, 1, 2, {2, -1}},
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(equals_transformers, &folders[0]),
        cmocka_unit_test_prestate(equals_transformers, &folders[1]),
        cmocka_unit_test_prestate(equals_transformers, &folders[2]),
        cmocka_unit_test_prestate(equals_transformers, &folders[3]),
        cmocka_unit_test_prestate(equals_transformers, &folders[4]),
        cmocka_unit_test(the_rest_is_refused_by_name),
        cmocka_unit_test(ranks_become_scores),
        cmocka_unit_test(ids_far_behind_the_vocabulary_are_refused),
        cmocka_unit_test(tokens_are_added_one_by_one),
        cmocka_unit_test(room_grows_with_what_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
