#include "cli/ask/questions.h"

#include "base/file_kind.h"
#include "base/utf8.h"
#include "cli/ask/choices.h"
#include "cli/input.h"
#include "cli/signals.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char on_stdin[] = "standard input";

const arg_option question_args[] = {
    {"question", .kind = ARG_OPERAND, .value = "QUESTION", .at = offsetof(question_options, given),
     .max = 1 << 20, .help = "each is asked about the same documents"},
    {"questions", "Q", .kind = ARG_LIST, .value = "FILE", .at = offsetof(question_options, files),
     .help =
         "JSON lines: a string, or {\"question\", \"document\", \"id\", \"max_answer\", \"stop\", "
         "\"choices\"}, where a document is a path in the place of -f; - answers those of standard "
         "input as they come; may be repeated"},
    {"interactive", "i", .kind = ARG_FLAG, .at = offsetof(question_options, interactive),
     .help = "then ask for questions at the terminal, or take each line of standard input for one"},
    {"max-answer", "n", .alias = "predict", .kind = ARG_INT, .value = "N",
     .at = offsetof(question_options, most), .initial = "256", .min = -1, .max = INT32_MAX,
     .help = "tokens of an answer; -1: until an end token or the trained length"},
    {"choices", .kind = ARG_TEXT, .value = "LIST", .at = offsetof(question_options, choices),
     .help = "answer with the likeliest of these texts, which commas part (\\, is a comma of one)"},
    {0},
};

static cca_status no_memory(cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the questions");
}

static bool push(questions *q, const question *item) {
    if (q->n == q->capacity) {
        size_t capacity = q->capacity ? 2 * q->capacity : 16;
        question *items = realloc(q->items, capacity * sizeof *items);
        if (!items) return false;
        q->items = items;
        q->capacity = capacity;
    }
    q->items[q->n++] = *item;
    return true;
}

static void drop(question *item) {
    json_decref(item->line);
    free(item->copy);
    *item = (question){0};
}

/* ---- JSON lines ---- */

static cca_status bad_field(question_place at, const char *field, const char *wanted,
                            cca_error *err) {
    return cca_fail(err, CCA_USAGE, "%s, line %zu, field \"%s\": %s expected", at.file, at.line,
                    field, wanted);
}

static bool is_text(const json_t *value) {
    return json_is_string(value) && json_string_length(value) > 0;
}

static bool is_empty(const char *text, size_t size) {
    return cca_file_lead(text, size) == size;
}

static bool is_question(const json_t *value) {
    return json_is_string(value) && !is_empty(json_string_value(value), json_string_length(value));
}

/* A text or an array of texts becomes an array. */
static cca_status read_stops(question *out, json_t *value, question_place at, cca_error *err) {
    static const char *const wanted = "a text that is not empty, or an array of such texts";
    json_t *array = json_is_array(value) ? value : json_pack("[O]", value);
    if (!array) return no_memory(err);
    if (array != value && json_object_set_new(out->line, "stop", array) != 0) return no_memory(err);
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (!is_text(json_array_get(array, i))) return bad_field(at, "stop", wanted, err);
    }
    out->stops = array;
    return CCA_OK;
}

static cca_status read_choices(question *out, json_t *value, question_place at, cca_error *err) {
    char *name;
    if (asprintf(&name, "%s, line %zu, field \"choices\"", at.file, at.line) < 0) {
        return no_memory(err);
    }
    out->choices = value;
    cca_status status = choices_check(value, name, err);
    free(name);
    return status;
}

static bool is_path(const json_t *value) {
    const char *path = json_string_value(value);
    return is_text(value) && strlen(path) == json_string_length(value) && strcmp(path, "-") != 0;
}

static cca_status read_document(question *out, json_t *value, cca_error *err) {
    out->document = value;
    size_t n = question_n_paths(out);
    bool right = n > 0;
    for (size_t i = 0; i < n; i++) {
        right &= is_path(json_is_array(value) ? json_array_get(value, i) : value);
    }
    if (right && out->at.file != on_stdin) return CCA_OK;
    return right ? cca_fail(err, CCA_USAGE,
                            "%s, line %zu, field \"document\": only questions of a file have it",
                            out->at.file, out->at.line)
                 : bad_field(out->at, "document", "a path other than -, or an array of such paths",
                             err);
}

static cca_status read_fields(question *out, question_place at, cca_error *err) {
    const char *name;
    json_t *value, *text = json_object_get(out->line, "question");
    void *next;
    json_object_foreach_safe(out->line, next, name, value) {
        cca_status status = CCA_OK;
        if (strcmp(name, "id") == 0) {
            out->id = value;
            if (!json_is_string(value) && !json_is_number(value)) {
                status = bad_field(at, name, "a text or a number", err);
            }
        } else if (strcmp(name, "max_answer") == 0) {
            out->most = json_integer_value(value);
            if (!json_is_integer(value) || out->most < -1 || out->most > INT32_MAX) {
                status = bad_field(at, name, "a whole number from -1 to 2147483647", err);
            }
        } else if (strcmp(name, "document") == 0) {
            status = read_document(out, value, err);
        } else if (strcmp(name, "stop") == 0) {
            status = read_stops(out, value, at, err);
        } else if (strcmp(name, "choices") == 0) {
            status = read_choices(out, value, at, err);
        } else if (strcmp(name, "question") != 0) {
            status = cca_fail(err, CCA_USAGE,
                              "%s, line %zu: unknown field \"%s\"; there are question, document, "
                              "id, max_answer, stop and choices",
                              at.file, at.line, name);
        }
        if (status) return status;
    }
    if (!is_question(text)) return bad_field(at, "question", "a text that is not empty", err);
    out->text = json_string_value(text);
    out->size = json_string_length(text);
    return CCA_OK;
}

/* *out is left without a text where the line is empty. */
static cca_status read_json(question *out, const questions *q, const char *line, size_t size,
                            question_place at, cca_error *err) {
    json_error_t why;
    size_t valid = cca_utf8_valid(line, size);
    *out = (question){.most = q->options->most, .choices = q->choices, .at = at};
    if (valid != size) {
        return cca_fail(err, CCA_BAD_TEXT, "%s, line %zu: invalid UTF-8 at byte %zu of the line",
                        at.file, at.line, valid);
    }
    size_t lead = cca_file_lead(line, size);
    if (lead == size) return CCA_OK;
    out->line = json_loadb(line + lead, size - lead,
                           JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!out->line) {
        return cca_fail(err, CCA_USAGE, "%s, line %zu: no JSON: %s (byte %d of the line)", at.file,
                        at.line, why.text, (int)lead + why.position);
    }
    if (json_is_object(out->line)) return read_fields(out, at, err);
    if (!is_question(out->line)) {
        return cca_fail(err, CCA_USAGE,
                        "%s, line %zu: a text that is not empty or an object expected", at.file,
                        at.line);
    }
    out->text = json_string_value(out->line);
    out->size = json_string_length(out->line);
    return CCA_OK;
}

static cca_status read_file(questions *q, const char *path, cca_error *err) {
    text_buffer text = {0};
    cca_status status = input_read_file(&text, path, err);
    size_t at = 0;
    for (size_t line = 1; at < text.size && !status; line++) {
        const char *begin = text.bytes + at, *end = memchr(begin, '\n', text.size - at);
        size_t size = end ? (size_t)(end - begin) : text.size - at;
        question item;
        status = read_json(&item, q, begin, size, (question_place){path, line}, err);
        at += size + 1;
        if (!status && item.text && !push(q, &item)) status = no_memory(err);
        if (status || !item.text) drop(&item);
    }
    text_free(&text);
    return status;
}

/* ---- documents that questions name ---- */

bool questions_have_documents(const questions *q) {
    return q->n > 0 && q->items[0].document;
}

size_t question_n_paths(const question *q) {
    if (!q->document) return 0;
    return json_is_array(q->document) ? json_array_size(q->document) : 1;
}

const char *question_path(const question *q, size_t index) {
    bool several = json_is_array(q->document);
    return json_string_value(several ? json_array_get(q->document, index) : q->document);
}

static bool same_documents(const question *a, const question *b) {
    size_t n = question_n_paths(a);
    bool same = n == question_n_paths(b);
    for (size_t i = 0; i < n && same; i++) {
        same = strcmp(question_path(a, i), question_path(b, i)) == 0;
    }
    return same;
}

/* All questions name one, or none does. */
static cca_status check_documents(questions *q, cca_error *err) {
    const question *with = NULL, *without = NULL;
    for (size_t i = 0; i < q->n; i++) {
        question *item = &q->items[i];
        item->again = i > 0 && same_documents(item, item - 1);
        const question **first = item->document ? &with : &without;
        if (!*first) *first = item;
    }
    if (!with || (!without && !q->live)) return CCA_OK;
    const question_place at = with->at;
    if (!without) {
        return cca_fail(err, CCA_USAGE,
                        "%s, line %zu, field \"document\": questions of standard input have none, "
                        "and all questions of a run name their document or none does",
                        at.file, at.line);
    }
    if (!without->at.file) {
        return cca_fail(err, CCA_USAGE,
                        "%s, line %zu, field \"document\": question 1, an argument, has none, and "
                        "all questions of a run name their document or none does",
                        at.file, at.line);
    }
    return cca_fail(
        err, CCA_USAGE,
        "%s, line %zu: field \"document\" is missing: all questions of a run name their "
        "document, as %s, line %zu, does, or none does",
        without->at.file, without->at.line, at.file, at.line);
}

/* ---- all sources ---- */

/* What was surely not meant: an empty one, and what the shell made of -f *.txt. */
static cca_status check_argument(const char *text, size_t size, size_t number, cca_error *err) {
    struct stat info;
    size_t valid = cca_utf8_valid(text, size);
    if (is_empty(text, size)) return cca_fail(err, CCA_USAGE, "question %zu is empty", number);
    if (stat(text, &info) == 0) {
        return cca_fail(err, CCA_USAGE,
                        "question %zu, \"%s\", is the name of a %s; -f takes one file, so each "
                        "needs its own -f; -Q takes such a question from a file",
                        number, text, S_ISDIR(info.st_mode) ? "folder" : "file");
    }
    if (valid == size) return CCA_OK;
    return cca_fail(err, CCA_BAD_TEXT, "question %zu: invalid UTF-8 at byte offset %zu", number,
                    valid);
}

static cca_status take_arguments(questions *q, cca_error *err) {
    const arg_list *given = &q->options->given;
    for (size_t i = 0; i < given->n; i++) {
        const char *text = given->items[i].text;
        size_t size = strlen(text);
        cca_status status = check_argument(text, size, i + 1, err);
        if (status) return status;
        question item = {
            .text = text, .size = size, .most = q->options->most, .choices = q->choices};
        if (!push(q, &item)) return no_memory(err);
    }
    return CCA_OK;
}

cca_status questions_open(questions *out, const question_options *options, term *t,
                          cca_error *err) {
    static const line_options typed = {.prompt = ">", .history = "ask_history"};
    *out = (questions){.options = options};
    if (options->interactive) out->live = QUESTIONS_TYPED;
    cca_status status = CCA_OK;
    if (options->choices) {
        status = choices_split(&out->choices, options->choices, "--choices", err);
    }
    if (!status) status = take_arguments(out, err);
    for (size_t i = 0; i < options->files.n && !status; i++) {
        const char *path = options->files.items[i].text;
        if (strcmp(path, "-") != 0) {
            status = read_file(out, path, err);
        } else if (out->live) {
            status = cca_fail(err, CCA_USAGE, "standard input can be read only once");
        } else {
            out->live = QUESTIONS_JSON;
        }
    }
    out->prompts = out->live == QUESTIONS_TYPED && isatty(STDIN_FILENO) == 1;
    if (!status && out->prompts && isatty(STDERR_FILENO) == 1) {
        status = line_reader_open(&out->reader, &typed, t, err);
    }
    if (!status && out->n == 0 && !out->live) {
        status = cca_fail(err, CCA_USAGE,
                          "no question: give at least one behind the options, or -Q FILE or -i");
    }
    return status ? status : check_documents(out, err);
}

void questions_close(questions *q) {
    for (size_t i = 0; i < q->n; i++) drop(&q->items[i]);
    drop(&q->now);
    line_reader_close(q->reader);
    json_decref(q->choices);
    free(q->items);
    free(q->buffer);
    *q = (questions){0};
}

static cca_status interrupted(cca_error *err) {
    return cca_fail(err, CCA_INTERRUPTED, "interrupted while waiting for a question");
}

/* The same for what is edited; Ctrl-C drops what was typed, or ends where nothing was. */
static cca_status read_edited(questions *q, size_t *size, bool *there, cca_error *err) {
    text_buffer line = {.bytes = q->buffer, .capacity = q->buffer_size};
    line_event event;
    if (!text_reserve(&line, 1)) return no_memory(err);
    cca_status status = line_reader_read(q->reader, &line, false, &event, err);
    while (!status && event == LINE_INTERRUPT && *signals_stop() == SIGINT) {
        signals_forget();
        line.size = 0;
        status = line_reader_read(q->reader, &line, false, &event, err);
    }
    q->buffer = line.bytes;
    q->buffer_size = line.capacity;
    if (!status && (event == LINE_INTERRUPT || event == LINE_INTERRUPT_0)) return interrupted(err);
    *there = event == LINE_TEXT;
    *size = line.size;
    q->line++;
    if (!status && line.size > 0) line_reader_remember(q->reader, line.bytes, line.size);
    return status;
}

/* A line of standard input without its end; false at its end. */
static cca_status read_line(questions *q, size_t *size, bool *there, cca_error *err) {
    if (q->reader) return read_edited(q, size, there, err);
    if (q->prompts) fputs("> ", stderr);
    errno = 0;
    ssize_t n = getline(&q->buffer, &q->buffer_size, stdin);
    *there = n > 0;
    if (n <= 0) {
        if (q->prompts) fputc('\n', stderr);
        if (*signals_stop()) return interrupted(err);
        if (feof(stdin)) return CCA_OK;
        return cca_fail(err, errno == ENOMEM ? CCA_NO_MEMORY : CCA_RUNTIME, "%s: cannot read: %s",
                        on_stdin, strerror(errno));
    }
    if (q->buffer[n - 1] == '\n') n--;
    if (n > 0 && q->buffer[n - 1] == '\r') n--;
    *size = (size_t)n;
    q->line++;
    return CCA_OK;
}

static cca_status take_typed(questions *q, size_t size, cca_error *err) {
    size_t valid = cca_utf8_valid(q->buffer, size);
    if (valid != size) {
        return cca_fail(err, CCA_BAD_TEXT, "%s, line %zu: invalid UTF-8 at byte %zu of the line",
                        on_stdin, q->line, valid);
    }
    q->now = (question){
        .size = size, .most = q->options->most, .choices = q->choices, .copy = malloc(size + 1)};
    if (!q->now.copy) return no_memory(err);
    memcpy(q->now.copy, q->buffer, size);
    q->now.copy[size] = '\0';
    size_t mark = q->line == 1 && size >= 3 && memcmp(q->buffer, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    if (!is_empty(q->buffer, size)) q->now.text = q->now.copy + mark;
    q->now.size -= mark;
    return CCA_OK;
}

cca_status questions_next(questions *q, const question **out, cca_error *err) {
    *out = NULL;
    if (q->taken < q->n) {
        *out = &q->items[q->taken++];
        return CCA_OK;
    }
    bool there = q->live != QUESTIONS_LISTED;
    cca_status status = CCA_OK;
    do {
        size_t size = 0;
        drop(&q->now);
        if (there) status = read_line(q, &size, &there, err);
        if (status || !there) return status;
        status = q->live == QUESTIONS_TYPED ? take_typed(q, size, err)
                                            : read_json(&q->now, q, q->buffer, size,
                                                        (question_place){on_stdin, q->line}, err);
    } while (!status && !q->now.text);
    if (!status) *out = &q->now;
    return status;
}
