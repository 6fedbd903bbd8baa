/* cca export: makes a model file. */
#include "base/workers.h"
#include "cli/cli.h"
#include "cli/signals.h"
#include "export/mixture.h"
#include "export/model_file.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct export_options {
    arg_list inputs;
    const char *output, *patch, *type, *tokenizer, *chat_template, *random;
    int64_t group_size, window_size, ctx_size, seed, threads;
    term_options term;
} export_options;

static const arg_option own_args[] = {
    {"input", .kind = ARG_OPERAND, .value = "IN", .at = offsetof(export_options, inputs), .max = 1,
     .help = "a Hugging Face folder (with config.json), a GGUF file, or a llama2.c file"},
    {"output", "o", .kind = ARG_TEXT, .value = "FILE", .at = offsetof(export_options, output),
     .help = "the model file to make"},
    {"patch", .kind = ARG_TEXT, .value = "FILE", .at = offsetof(export_options, patch),
     .help = "tensors and keys that take the place of the GGUF file's, whose weights are checked "
             "to be those that the patch is for"},
    {"type", .kind = ARG_TEXT, .value = "TYPE", .at = offsetof(export_options, type),
     .suggest = CCA_EXPORT_TYPES,
     .help = "of matrices, " CCA_EXPORT_TYPES "; else as they are in the source"},
    {"tokenizer", .kind = ARG_TEXT, .value = "FILE", .at = offsetof(export_options, tokenizer),
     .help = "SentencePiece model, tokenizer.json or llama2.c tokenizer; else the source's own"},
    {"chat-template", .kind = ARG_CHOICE, .value = "NAME",
     .at = offsetof(export_options, chat_template), .choices = CLI_CHAT_NAMES,
     .help = "the template that ask takes for the model; else the source's"},
    {"group-size", "g", .kind = ARG_INT, .value = "N", .at = offsetof(export_options, group_size),
     .initial = "0", .max = INT32_MAX, .help = "g to write; 0: what the source says"},
    {"window", "w", .alias = "window-size", .kind = ARG_INT, .value = "N",
     .at = offsetof(export_options, window_size), .initial = "0", .max = INT32_MAX,
     .help = "s to write, a multiple of g; 0: what the source says"},
    {"ctx-size", "c", .kind = ARG_INT, .value = "N", .at = offsetof(export_options, ctx_size),
     .initial = "0", .max = INT32_MAX,
     .help = "trained length to write; 0: the source's (--random: 131072)"},
    {"random", .kind = ARG_TEXT, .value = "SHAPE", .at = offsetof(export_options, random),
     .help = "random weights; SHAPE is dim,layers,heads,kv_heads,hidden,vocab"},
    {"seed", "s", .kind = ARG_INT, .value = "N", .at = offsetof(export_options, seed),
     .initial = "0", .max = 0x1p53, .help = "of --random"},
    {"threads", "t", .kind = ARG_INT, .value = "N", .at = offsetof(export_options, threads),
     .initial = "0", .max = CCA_MOST_THREADS, .help = "threads; 0: $OMP_NUM_THREADS, else all"},
    {0},
};

static const arg_group groups[] = {
    {"Export", own_args, 0},
    {"Messages", term_args, offsetof(export_options, term)},
    {0},
};

/* "512,8,8,8,1376,32000" */
static cca_status parse_shape(cca_random_shape *out, const char *text, cca_error *err) {
    int64_t *const fields[] = {&out->dim,        &out->n_layers,   &out->n_heads,
                               &out->n_kv_heads, &out->hidden_dim, &out->vocab_size};
    enum { N_FIELDS = sizeof fields / sizeof *fields };
    const char *at = text;
    for (size_t i = 0; i < N_FIELDS; i++) {
        char number[24];
        size_t size = strcspn(at, ",");
        bool is_last = at[size] == '\0';
        snprintf(number, sizeof number, "%.*s", (int)size, at);
        if (size >= sizeof number || !args_int(fields[i], number) || *fields[i] < 1 ||
            is_last != (i == N_FIELDS - 1)) {
            return cca_fail(err, CCA_USAGE,
                            "--random %s: dim,layers,heads,kv_heads,hidden,vocab expected, each "
                            "at least 1",
                            text);
        }
        at += size + 1;
    }
    return CCA_OK;
}

static void show_progress(void *user, uint64_t done, uint64_t total, const char *tensor) {
    term *t = user;
    (void)tensor;
    if (!t->what) term_start(t, "export", TERM_BYTES, (int64_t)total);
    term_progress(t, (int64_t)done, 0);
}

static void show_warning(void *user, const char *text) {
    term_warn(user, "%s", text);
}

static cca_status export(const export_options *o, term *t, cca_error *err) {
    cca_random_shape shape = {.seed = (uint64_t)o->seed};
    cca_export_options options = {
        .input = o->inputs.n > 0 ? o->inputs.items[0].text : NULL,
        .random = o->random ? &shape : NULL,
        .patch = o->patch,
        .output = o->output,
        .tokenizer = o->tokenizer,
        .chat_template = o->chat_template,
        .has_type = o->type != NULL,
        .group_size = o->group_size,
        .window_size = o->window_size,
        .ctx_size = o->ctx_size,
        .n_threads = cli_threads(o->threads),
        .user = t,
        .on_progress = show_progress,
        .on_warning = show_warning,
        .stop = signals_stop(),
    };
    if (o->type && !cca_export_type_parse(&options, o->type)) {
        return cca_fail(err, CCA_USAGE, "--type %s: none of " CCA_EXPORT_TYPES, o->type);
    }
    if (!o->output) return cca_fail(err, CCA_USAGE, "-o FILE is missing: where to write the model");
    if (!options.input && !o->random) {
        return cca_fail(err, CCA_USAGE, "nothing to export: name a folder or file, or --random");
    }
    cca_status status = o->random ? parse_shape(&shape, o->random, err) : CCA_OK;
    if (!status) status = cca_export(&options, err);
    term_done(t);
    return status;
}

static cca_status run(const void *options, cca_error *err) {
    const export_options *o = options;
    term t;
    term_open(&t, &o->term);
    cca_status status = export(o, &t, err);
    if (!status) term_note(&t, "wrote %s", o->output);
    term_close(&t);
    return status;
}

const cli_command cli_export = {
    .name = "export",
    .summary = "convert, quantise or make weights",
    .usage = "IN -o OUT.gguf [options]\n       cca export --random SHAPE -o OUT.gguf [options]",
    .notes =
        "The file appears under its name only when it is complete and has been read back. A model "
        "without a tokenizer gives a warning: commands that need text refuse it.",
    .groups = groups,
    .options_size = sizeof(export_options),
    .run = run,
};
