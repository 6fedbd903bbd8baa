/* cca tokenize: the ids of a text, and back. */
#include "cli/cli.h"
#include "cli/input.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct tokenize_options {
    const char *model;
    input_options input;
    output_options output;
    bool no_bos, count, pieces, decode, check;
} tokenize_options;

static const arg_option own_args[] = {
    {"model", "m", .kind = ARG_TEXT, .value = "FILE", .at = offsetof(tokenize_options, model),
     .help = "model file; else $CCA_MODEL, else the one that ships with the program"},
    {"no-bos", .kind = ARG_FLAG, .at = offsetof(tokenize_options, no_bos),
     .help = "leave out the BOS that a prompt starts with"},
    {"count", .kind = ARG_FLAG, .at = offsetof(tokenize_options, count),
     .help = "only the number of tokens"},
    {"pieces", .kind = ARG_FLAG, .at = offsetof(tokenize_options, pieces),
     .help = "a line a token: id, byte offset, piece"},
    {"decode", .kind = ARG_FLAG, .at = offsetof(tokenize_options, decode),
     .help = "the input is decimal ids; write their text"},
    {"check", .kind = ARG_FLAG, .at = offsetof(tokenize_options, check),
     .help = "decode the ids and compare with the text; a difference is exit 8"},
    {0},
};

static const arg_group groups[] = {
    {"Text", input_args, offsetof(tokenize_options, input)},
    {"Tokens", own_args, 0},
    {"Output", output_args, offsetof(tokenize_options, output)},
    {0},
};

typedef struct tokenizing {
    const tokenize_options *o;
    output out;
    const char *model_name;
    cca_tokenizer *tok;
    input_text text;
    cca_tokens tokens;
    text_buffer decoded;
} tokenizing;

/* The text of the ids. The dummy prefix of the first text is no part of it. */
static cca_status decode(tokenizing *t, cca_error *err) {
    bool strip = cca_tokenizer_info(t->tok)->dummy_prefix;
    for (size_t i = 0; i < t->tokens.n; i++) {
        size_t size;
        const char *bytes = cca_tokenizer_bytes(&size, t->tok, t->tokens.ids[i], false);
        if (size == 0) continue;
        size_t skip = strip && bytes[0] == ' ';
        strip = false;
        if (!text_append(&t->decoded, bytes + skip, size - skip)) {
            return cca_fail(err, CCA_NO_MEMORY, "no memory for the text");
        }
    }
    return CCA_OK;
}

static cca_status read_ids(tokenizing *t, cca_error *err) {
    int64_t vocab_size = cca_tokenizer_info(t->tok)->vocab_size;
    return input_parse_ids(&t->tokens, &t->text.text, t->text.sources[0].name, vocab_size, err);
}

static cca_status encode(tokenizing *t, cca_error *err) {
    unsigned flags = CCA_ENCODE_START | (t->o->input.special ? CCA_ENCODE_SPECIAL : 0);
    cca_status status = t->o->no_bos ? CCA_OK : input_bos(&t->tokens, t->tok, err);
    return status ? status : input_encode(&t->tokens, t->tok, &t->text, flags, err);
}

/* What comes back must be what went in, byte for byte. */
static cca_status check(const tokenizing *t, cca_error *err) {
    const text_buffer *a = &t->text.text, *b = &t->decoded;
    size_t at = 0;
    while (at < a->size && at < b->size && a->bytes[at] == b->bytes[at]) at++;
    if (at == a->size && at == b->size) return CCA_OK;
    return cca_fail(err, CCA_CHECK_FAILED,
                    "round trip: %zu bytes became %zu, they differ from byte offset %zu on",
                    a->size, b->size, at);
}

/* ---- output ---- */

static json_t *record(const tokenizing *t) {
    json_t *ids = json_array();
    for (size_t i = 0; i < t->tokens.n; i++) output_add(&ids, json_integer(t->tokens.ids[i]));
    json_t *all = json_pack("{s:s, s:I, s:o}", "schema", "cca.tokenize.1", "count",
                            (json_int_t)t->tokens.n, "ids", ids);
    if (!all) return NULL;
    if (t->o->pieces) {
        json_t *pieces = json_array(), *offsets = json_array();
        for (size_t i = 0; i < t->tokens.n; i++) {
            const char *piece = cca_tokenizer_piece(t->tok, t->tokens.ids[i]);
            output_add(&pieces, output_string(piece, strlen(piece)));
            output_add(&offsets, json_integer((json_int_t)t->tokens.offsets[i]));
        }
        output_put(&all, "pieces", pieces);
        output_put(&all, "offsets", offsets);
    }
    if (t->o->decode) output_put(&all, "text", output_string(t->decoded.bytes, t->decoded.size));
    return all;
}

static void print_ids(tokenizing *t) {
    for (size_t i = 0; i < t->tokens.n; i++) {
        output_printf(&t->out, i ? " %d" : "%d", t->tokens.ids[i]);
    }
    output_printf(&t->out, "\n");
}

static void print_pieces(tokenizing *t) {
    for (size_t i = 0; i < t->tokens.n; i++) {
        output_printf(&t->out, "%d\t%llu\t%s\n", t->tokens.ids[i],
                      (unsigned long long)t->tokens.offsets[i],
                      cca_tokenizer_piece(t->tok, t->tokens.ids[i]));
    }
}

static void print_answer(tokenizing *t) {
    const tokenize_options *o = t->o;
    if (o->output.json) {
        output_json(&t->out, record(t));
    } else if (o->count) {
        output_printf(&t->out, "%zu\n", t->tokens.n);
    } else if (o->pieces) {
        print_pieces(t);
    } else if (o->decode) {
        output_write(&t->out, t->decoded.bytes, t->decoded.size);
    } else if (o->check) {
        output_printf(&t->out, "%zu token%s the same %zu byte%s\n", t->tokens.n,
                      t->tokens.n == 1 ? " gives" : "s give", t->decoded.size,
                      term_plural((int64_t)t->decoded.size));
    } else {
        print_ids(t);
    }
}

/* ---- the run ---- */

static cca_status open_tokenizer(tokenizing *t, const char *path, cca_gguf *file, cca_error *err) {
    cca_status status = cca_tokenizer_open(&t->tok, file, err);
    if (status || t->tok) return status;
    return cca_fail(err, CCA_BAD_MODEL, "%s: the model file has no tokenizer", path);
}

static cca_status tokenize(tokenizing *t, cca_error *err) {
    const tokenize_options *o = t->o;
    if (o->check && o->decode) {
        return cca_fail(err, CCA_USAGE, "--check and --decode exclude each other");
    }
    cca_status status = input_read(&t->text, &o->input, NULL, err);
    if (!status) status = o->decode ? read_ids(t, err) : encode(t, err);
    if (!status && (o->decode || o->check)) status = decode(t, err);
    if (!status && o->check) status = check(t, err);
    if (!status) status = output_open(&t->out, o->output.file, err);
    if (status) return status;
    print_answer(t);
    return output_close(&t->out, true, err);
}

static cca_status run(const void *options, cca_error *err) {
    tokenizing t = {.o = options};
    char *path;
    cca_gguf *file = NULL;
    cca_status status = cli_model_path(&path, t.o->model, err);
    if (status) return status;
    status = cca_gguf_open(&file, path, err);
    if (!status) status = open_tokenizer(&t, path, file, err);
    if (!status) status = tokenize(&t, err);
    input_free(&t.text);
    cca_tokens_free(&t.tokens);
    text_free(&t.decoded);
    cca_tokenizer_close(t.tok);
    cca_gguf_close(file);
    free(path);
    return status;
}

const cli_command cli_tokenize = {
    .name = "tokenize",
    .summary = "ids, counts, round trip",
    .usage = "-m MODEL -p TEXT [options]",
    .groups = groups,
    .options_size = sizeof(tokenize_options),
    .run = run,
};
