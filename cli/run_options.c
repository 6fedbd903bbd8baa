/* Options that several commands share, and the steps from them to an engine and its limits. */
#include "cli/cli.h"
#include "cli/folder.h"

#include "base/team.h"
#include "base/utf8.h"
#include "base/workers.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const arg_option model_args[] = {
    {"model", "m", .kind = ARG_TEXT, .value = "FILE", .at = offsetof(model_options, model),
     .help = "model file (GGUF); else $CCA_MODEL, else the one that ships with the program"},
    {"threads", "t", .kind = ARG_INT, .value = "N", .at = offsetof(model_options, threads),
     .initial = "0", .max = CCA_MOST_THREADS,
     .help = "threads; 0: $OMP_NUM_THREADS, else one a physical core"},
    {"device", .kind = ARG_TEXT, .value = "NAME", .at = offsetof(model_options, device),
     .initial = "auto", .suggest = "auto|cpu|cuda|cuda:0", .help = "auto, cpu, cuda or cuda:N"},
    {"fp8", .kind = ARG_FLAG, .at = offsetof(model_options, fp8),
     .help = "products of prefill in 8-bit floats, on GPUs that have them: faster, less exact"},
    {0},
};

/* Entries that two tables have. */
#define CACHE_ARGS                                                                                 \
    {"ubatch-size",                                                                                \
     "ub",                                                                                         \
     .kind = ARG_INT,                                                                              \
     .value = "N",                                                                                 \
     .at = offsetof(context_options, chunk_size),                                                  \
     .initial = "0",                                                                               \
     .max = 1 << 20,                                                                               \
     .help = "tokens a prefill chunk; 0: 512, on a GPU 8192"},                                     \
        {"cache-type-k",                                                                           \
         "ctk",                                                                                    \
         .kind = ARG_CHOICE,                                                                       \
         .value = "TYPE",                                                                          \
         .at = offsetof(context_options, k_type),                                                  \
         .initial = "bf16",                                                                        \
         .choices = "f32|f16|bf16|q8_0",                                                           \
         .help = "type of cached keys"},                                                           \
    {                                                                                              \
        "cache-type-v", "ctv", .kind = ARG_CHOICE, .value = "TYPE",                                \
                               .at = offsetof(context_options, v_type), .initial = "bf16",         \
                               .choices = "f32|f16|bf16|q8_0", .help = "type of cached values"     \
    }

const arg_option context_args[] = {
    {"ctx-size", "c", .kind = ARG_INT, .value = "N", .at = offsetof(context_options, ctx_size),
     .initial = "0", .max = INT32_MAX,
     .help = "most positions; 0: as many as this run needs. Never cuts text"},
    {"beyond-trained", .kind = ARG_FLAG, .at = offsetof(context_options, beyond_trained),
     .help = "lift the limit of the trained length"},
    {"attn", .kind = ARG_TEXT, .value = "KIND", .at = offsetof(context_options, attn),
     .initial = "auto", .suggest = CLI_ATTN_NAMES,
     .help = "auto (cca for weights that were trained with it, else recall), cca, recall or full; "
             "for comparison mean, max, window, sinks:N"},
    {"group-size", "g", .kind = ARG_INT, .value = "N", .at = offsetof(context_options, group_size),
     .initial = "0", .max = INT32_MAX, .help = "tokens a core token stands for; 0: the model's"},
    {"window", "w", .alias = "window-size", .kind = ARG_INT, .value = "N",
     .at = offsetof(context_options, window_size), .initial = "0", .max = INT32_MAX,
     .help = "tokens seen one by one, a multiple of the group size; 0: the model's"},
    CACHE_ARGS,
    {"mem-limit", .kind = ARG_SIZE, .value = "SIZE", .at = offsetof(context_options, mem_limit),
     .help = "refuse a run that takes more (512M, 8G); else more than there is"},
    {"dry-run", .kind = ARG_FLAG, .at = offsetof(context_options, dry_run),
     .help = "print the memory that the run would take, and stop"},
    {0},
};

const arg_option cache_args[] = {CACHE_ARGS, {0}};

#define AUTO_INT .kind = ARG_INT, .value = "N|auto", .initial = "auto", .word = "auto"

const arg_option recall_args[] = {
    {"sinks", AUTO_INT, .at = offsetof(context_options, sinks), .max = INT32_MAX,
     .help = "first tokens that every query sees raw, a multiple of the group size; auto: the "
             "model's, else one group"},
    {"recall", AUTO_INT, .at = offsetof(context_options, recall), .max = INT32_MAX,
     .help = "tokens behind the window that a query recalls, a multiple of the group size; auto: "
             "the model's, else 2048 for weights that were not trained with CCA-Attention"},
    {"recall-tile", AUTO_INT, .at = offsetof(context_options, recall_tile), .min = 1,
     .max = CLI_MOST_TILE,
     .help = "queries of a prefill that choose together, a power of two; auto: 64 over the query "
             "heads that share keys"},
    {"cache-type-r", "ctr", .kind = ARG_TEXT, .value = "TYPE",
     .at = offsetof(context_options, row_type), .suggest = "q8_0|q4_0|q8_0/q4_0",
     .help = "type of rows behind the window, which are recalled: q8_0, q4_0 …, or keys/values; "
             "else the window's"},
    {"rows", .kind = ARG_CHOICE, .value = "WHERE", .at = offsetof(context_options, rows),
     .initial = "memory", .choices = "memory|disk|host",
     .help =
         "where rows behind the window lie, which are recalled: in memory; mapped on disk, in the "
         "session's file or the cache folder (CPU); or, of a GPU, in the host's memory"},
    {"cores", .kind = ARG_FLAG, .at = offsetof(context_options, cores),
     .help = "see what is not recalled as cores, also with weights that never saw any"},
    {"no-cores", .kind = ARG_FLAG, .at = offsetof(context_options, no_cores),
     .help = "do not see what is neither raw nor recalled"},
    {0},
};

/* The table of sampling, with a default temperature. */
#define SAMPLING_ARGS(TEMPERATURE)                                                                 \
    {"seed",                                                                                       \
     "s",                                                                                          \
     .kind = ARG_INT,                                                                              \
     .value = "N",                                                                                 \
     .at = offsetof(sampling_options, seed),                                                       \
     .initial = "-1",                                                                              \
     .min = -1,                                                                                    \
     .max = UINT32_MAX,                                                                            \
     .help = "of sampling; -1: a new one"},                                                        \
        {"temp",                                                                                   \
         .alias = "temperature",                                                                   \
         .kind = ARG_REAL,                                                                         \
         .value = "X",                                                                             \
         .at = offsetof(sampling_options, temperature),                                            \
         .initial = (TEMPERATURE),                                                                 \
         .max = 1e6,                                                                               \
         .help = "temperature; 0 takes the likeliest token"},                                      \
        {"top-k",                                                                                  \
         .kind = ARG_INT,                                                                          \
         .value = "N",                                                                             \
         .at = offsetof(sampling_options, top_k),                                                  \
         .initial = "40",                                                                          \
         .max = INT32_MAX,                                                                         \
         .help = "among the N likeliest; 0: off"},                                                 \
        {"top-p",           .kind = ARG_REAL,                                                      \
         .value = "X",      .at = offsetof(sampling_options, top_p),                               \
         .initial = "0.95", .min = 1e-6,                                                           \
         .max = 1,          .help = "among those that make up X; 1: off"},                         \
        {"min-p",                                                                                  \
         .kind = ARG_REAL,                                                                         \
         .value = "X",                                                                             \
         .at = offsetof(sampling_options, min_p),                                                  \
         .initial = "0.05",                                                                        \
         .max = 1,                                                                                 \
         .help = "at least X of the likeliest; 0: off"},                                           \
        {"repeat-penalty", .kind = ARG_REAL,                                                       \
         .value = "X",     .at = offsetof(sampling_options, repeat_penalty),                       \
         .initial = "1.0", .min = 1e-6,                                                            \
         .max = 1e6,       .help = "penalty of repeated tokens; 1: off"},                          \
        {"repeat-last-n",  .kind = ARG_INT,                                                        \
         .value = "N",     .at = offsetof(sampling_options, repeat_last_n),                        \
         .initial = "64",  .min = -1,                                                              \
         .max = INT32_MAX, .help = "how far back; 0: off, -1: all"},                               \
        {0},

const arg_option sampling_args[] = {SAMPLING_ARGS("0.8")};
const arg_option greedy_args[] = {SAMPLING_ARGS("0")};

const arg_option chat_args[] = {
    {"system-prompt", "sys", .kind = ARG_TEXT, .value = "TEXT",
     .at = offsetof(chat_options, system), .help = "what the model is told first, by its template"},
    {"chat-template", .kind = ARG_CHOICE, .value = "NAME", .at = offsetof(chat_options, name),
     .choices = CLI_CHAT_NAMES,
     .help = "llama2, llama3, mistral[-v3|-v7], chatml, zephyr, plain; else the file's"},
    {0},
};

const arg_option output_args[] = {
    {"output", "o", .kind = ARG_TEXT, .value = "FILE", .at = offsetof(output_options, file),
     .help = "write the answer there, whole or not at all"},
    {"json", .kind = ARG_FLAG, .at = offsetof(output_options, json),
     .help = "one JSON record instead of text"},
    {0},
};

/* ---- the model ---- */

static cca_status no_model_memory(cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the name of a model");
}

/* The first model file that stands where the program's own would; NULL where there is none. */
static cca_status shipped_model(char **out, cca_error *err) {
    static const char *const places[] = {"models", "../share/cca"};
    char self[4096];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    *out = NULL;
    if (size <= 0) return CCA_OK;
    self[size] = '\0';
    *strrchr(self, '/') = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places && !*out; i++) {
        char *folder;
        file_names found = {0};
        if (asprintf(&folder, "%s/%s", self, places[i]) < 0) return no_model_memory(err);
        cca_status status = folder_list(&found, folder, "", ".gguf", err);
        if (found.n > 0 && !status && !(*out = strdup(found.paths[0]))) {
            status = no_model_memory(err);
        }
        file_names_free(&found);
        free(folder);
        if (status) return status;
    }
    return CCA_OK;
}

/* What export would make a model file of. */
static cca_status check_not_source(const char *path, cca_error *err) {
    static const char suffix[] = ".safetensors";
    struct stat info;
    size_t size = strlen(path), n = sizeof suffix - 1;
    bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    if (!folder && (size < n || strcmp(path + size - n, suffix) != 0)) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL,
                    "%s: is %s, no model file; \"cca export FOLDER -o FILE.gguf\" makes one of a "
                    "Hugging Face folder",
                    path, folder ? "a folder" : "a file of weights");
}

cca_status cli_model_path(char **out, const char *given, cca_error *err) {
    const char *from_environment = getenv("CCA_MODEL");
    if (!given && from_environment && *from_environment) given = from_environment;
    cca_status status = CCA_OK;
    if (given) {
        *out = strdup(given);
    } else {
        status = shipped_model(out, err);
    }
    if (!status && *out) {
        status = check_not_source(*out, err);
        if (!status) return CCA_OK;
        free(*out);
        *out = NULL;
    }
    if (status) return status;
    if (given) return no_model_memory(err);
    return cca_fail(err, CCA_BAD_MODEL,
                    "no model: give -m FILE or set CCA_MODEL; \"cca help export\" tells how to "
                    "make a model file");
}

int cli_threads(int64_t asked) {
    const char *from_environment = getenv("OMP_NUM_THREADS");
    if (asked || !from_environment || !*from_environment) return (int)asked;
    return (int)cca_min(cca_team_most(), CCA_MOST_THREADS);
}

static void describe_engine(const cca_engine *engine, term *t) {
    const cca_engine_facts *f = cca_engine_info(engine);
    char size[TERM_SIZE_TEXT];
    term_detail(t,
                "model %s: %s, %lld layer%s, dim %lld, vocabulary %lld, %llu parameters, %s of %s",
                f->path, f->arch, (long long)f->n_layers, term_plural(f->n_layers),
                (long long)f->dim, (long long)f->vocab_size, (unsigned long long)f->n_params,
                term_size(size, f->weight_bytes), f->weight_type);
    term_detail(t, "trained length %lld, RoPE %s%s", (long long)f->trained_length, f->rope,
                f->tuned ? ", tuned for CCA-Attention" : "");
    term_detail(t, "device %s (%s), %d thread%s", f->device, f->kernels, f->n_threads,
                term_plural(f->n_threads));
}

static cca_status open_engine(cca_engine **out, const model_options *options, bool plan_only,
                              term *t, cca_error *err) {
    char *path;
    bool is_auto = strcmp(options->device, "auto") == 0;
    cca_engine_options engine = {.device = options->kernels && is_auto ? "cpu" : options->device,
                                 .n_threads = cli_threads(options->threads),
                                 .kernels = options->kernels,
                                 .fp8 = options->fp8,
                                 .plan_only = plan_only};
    *out = NULL;
    if (options->kernels && strcmp(engine.device, "cpu") != 0) {
        return cca_fail(err, CCA_USAGE, "--kernels %s: the CPU's, not those of %s",
                        options->kernels, options->device);
    }
    cca_status status = cli_model_path(&path, options->model, err);
    if (status) return status;
    status = cca_engine_open(out, path, &engine, err);
    if (!status) describe_engine(*out, t);
    free(path);
    return status;
}

cca_status cli_engine_open(cca_engine **out, const model_options *options, term *t,
                           cca_error *err) {
    return open_engine(out, options, false, t, err);
}

cca_status cli_engine_open_to_plan(cca_engine **out, const model_options *options, term *t,
                                   cca_error *err) {
    return open_engine(out, options, true, t, err);
}

cca_status cli_tokenizer(const cca_tokenizer **out, const cca_engine *engine, cca_error *err) {
    *out = cca_engine_tokenizer(engine);
    if (*out) return CCA_OK;
    return cca_fail(err, CCA_BAD_MODEL, "%s: the model file has no tokenizer, which text needs",
                    cca_engine_info(engine)->path);
}

/* ---- length ---- */

int64_t cli_position_limit(const context_options *options, const cca_engine *engine) {
    int64_t limit = options->beyond_trained ? INT32_MAX : cca_engine_info(engine)->trained_length;
    return options->ctx_size > 0 ? cca_min(limit, options->ctx_size) : limit;
}

cca_status cli_check_length(const char *what, int64_t n, const context_options *options,
                            const cca_engine *engine, cca_error *err) {
    int64_t limit = cli_position_limit(options, engine);
    if (n <= limit) return CCA_OK;
    if (limit == options->ctx_size) {
        return cca_fail(err, CCA_NO_FIT, "%s has %lld tokens, --ctx-size allows %lld", what,
                        (long long)n, (long long)limit);
    }
    return cca_fail(err, CCA_NO_FIT,
                    "%s has %lld tokens, the model was trained for %lld; --beyond-trained lifts "
                    "the limit",
                    what, (long long)n, (long long)limit);
}

/* ---- attention ---- */

static cca_status check_tokens(const char *name, int64_t n, int64_t group_size, cca_error *err) {
    if (n <= 0 || n % group_size == 0) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "--%s %lld is no multiple of the group size %lld", name,
                    (long long)n, (long long)group_size);
}

/* What a kind has not is not asked for; that it recalls nothing may be said. */
static cca_status check_kind(const context_options *o, cca_error *err) {
    const struct {
        const char *name;
        int64_t n; /* -1: not given */
    } all[] = {{"sinks", o->sinks},
               {"recall", o->recall > 0 ? o->recall : -1},
               {"recall-tile", o->recall_tile}};
    bool has_sinks = cli_has_sinks(o->attn), cca = strcmp(o->attn, "cca") == 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i].n < 0 || (has_sinks && (i == 0 || !cca))) continue;
        return cca_fail(err, CCA_USAGE, "--%s %lld: attention %s has none", all[i].name,
                        (long long)all[i].n, o->attn);
    }
    if (o->row_type && (!has_sinks || cca)) {
        return cca_fail(err, CCA_USAGE, "--cache-type-r %s: attention %s recalls nothing",
                        o->row_type, o->attn);
    }
    if ((cli_rows_on_disk(o) || cli_rows_on_host(o)) && (!has_sinks || cca)) {
        return cca_fail(err, CCA_USAGE, "--rows %s: attention %s recalls nothing", o->rows,
                        o->attn);
    }
    if (has_sinks || (!o->cores && !o->no_cores)) return CCA_OK;
    return cca_fail(err, CCA_USAGE, "--%scores: attention %s leaves no choice",
                    o->cores ? "" : "no-", o->attn);
}

bool cli_is_attn(const char *word) {
    static const char names[] = "|" CLI_ATTN_NAMES "|";
    size_t n = strlen(word);
    if (strncmp(word, "sinks:", 6) == 0) return true;
    for (const char *at = strstr(names, word); n > 0 && at; at = strstr(at + 1, word)) {
        if (at[-1] == '|' && at[n] == '|') return true;
    }
    return false;
}

bool cli_has_sinks(const char *attn) {
    return strcmp(attn, "auto") == 0 || strcmp(attn, "cca") == 0 || strcmp(attn, "recall") == 0;
}

bool cli_rows_on_disk(const context_options *context) {
    return context->rows && strcmp(context->rows, "disk") == 0;
}

bool cli_rows_on_host(const context_options *context) {
    return context->rows && strcmp(context->rows, "host") == 0;
}

cca_status cli_check_attention(const context_options *o, const cca_engine *engine, cca_error *err) {
    int64_t g = o->group_size ? o->group_size : cca_engine_info(engine)->group_size;
    int64_t tile = o->recall_tile;
    cca_status status = check_kind(o, err);
    if (!status) status = check_tokens("sinks", o->sinks, g, err);
    if (!status) status = check_tokens("recall", o->recall, g, err);
    if (status) return status;
    if (tile > 0 && (tile & (tile - 1)) != 0) {
        return cca_fail(err, CCA_USAGE, "--recall-tile %lld is no power of two", (long long)tile);
    }
    if (o->cores && o->no_cores) {
        return cca_fail(err, CCA_USAGE, "--cores and --no-cores: one of them");
    }
    return CCA_OK;
}

context_options cli_with_attn(const context_options *options, const char *attn) {
    context_options o = *options;
    o.attn = attn;
    if (strcmp(attn, "recall") != 0 && strcmp(attn, "auto") != 0) {
        o.recall = o.recall_tile = -1;
        o.row_type = o.rows = NULL;
    }
    if (cli_has_sinks(attn)) return o;
    o.sinks = -1;
    o.cores = o.no_cores = false;
    return o;
}

cca_attention_settings cli_attention(const context_options *options, const cca_engine *engine) {
    cca_session_options o = cli_session_options(options, 1, 0);
    cca_attention_settings settings = {.attn = options->attn};
    cca_error ignored;
    (void)cca_session_attention_settings(&settings, engine, &o, &ignored);
    return settings;
}

json_t *cli_attention_json(const context_options *options, const cca_engine *engine) {
    cca_attention_settings a = cli_attention(options, engine);
    return json_pack(
        "{s:s, s:o, s:o, s:I, s:I, s:o, s:b, s:s, s:s, s:o}", "kind",
        cli_has_sinks(options->attn) ? a.attn : options->attn, "group_size",
        output_size(a.group_size), "window_size", output_size(a.window_size), "sinks",
        (json_int_t)a.sinks, "recall", (json_int_t)a.recall, "recall_tile",
        output_size(a.recall > 0 ? a.recall_tile : 0), "cores", (int)a.cores, "cache_type_k",
        options->k_type, "cache_type_v", options->v_type, "cache_type_r",
        options->row_type && a.recall > 0 ? json_string(options->row_type) : json_null());
}

void cli_describe_recall(char out[CLI_RECALL_TEXT], const cca_attention_settings *a,
                         const char *between, const char *is) {
    int n = 0;
    out[0] = '\0';
    if (strcmp(a->attn, "cca") != 0 && strcmp(a->attn, "recall") != 0) return;
    n = snprintf(out, CLI_RECALL_TEXT, "%ssinks%s%lld", between, is, (long long)a->sinks);
    if (a->recall > 0) {
        n += snprintf(out + n, (size_t)(CLI_RECALL_TEXT - n), "%srecall%s%lld%stile%s%lld", between,
                      is, (long long)a->recall, between, is, (long long)a->recall_tile);
    }
    if (a->recall > 0 || !a->cores) {
        snprintf(out + n, (size_t)(CLI_RECALL_TEXT - n), "%scores%s%s", between, is,
                 a->cores ? "yes" : "no");
    }
}

void cli_tell_attention(term *t, const context_options *options, const cca_engine *engine,
                        int64_t n_positions) {
    const cca_engine_facts *facts = cca_engine_info(engine);
    cca_attention_settings a = cli_attention(options, engine);
    long long g = a.group_size, s = a.window_size;
    bool named = facts->cca_keys || (options->group_size && options->window_size);
    char recall[CLI_RECALL_TEXT];
    if (s == 0) {
        term_detail(t, "full attention");
        return;
    }
    cli_describe_recall(recall, &a, ", ", " ");
    term_detail(t, "attention %s, g %lld, s %lld%s%s%s",
                cli_has_sinks(options->attn) ? a.attn : options->attn, g, s, recall,
                named ? "" : "; the model file names no g and s",
                n_positions <= s ? "; inside the window this is full attention" : "");
    if (facts->own_window && n_positions > facts->own_window) {
        term_note(
            t,
            "the model was trained to see %lld tokens in %lld of its %lld layers, which --attn "
            "full keeps to and --attn %s does not",
            (long long)facts->own_window, (long long)facts->n_windowed, (long long)facts->n_layers,
            cli_has_sinks(options->attn) ? a.attn : options->attn);
    }
}

void cli_show_progress(void *user, cca_session *session, int64_t pos) {
    term_progress(user, pos, cca_session_cache_bytes(session));
}
