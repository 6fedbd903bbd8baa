#include "cli/ask/documents.h"

#include "base/file_kind.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const arg_option document_args[] = {
    {"names", .kind = ARG_CHOICE, .value = "WHEN", .at = offsetof(document_options, names),
     .initial = "auto", .choices = "auto|on|off",
     .help = "a line with its name before each file, in the prompt; auto: where there are several"},
    {0},
};

static bool is_file(const arg_item *piece) {
    return piece->tag == 'f' && strcmp(piece->text, "-") != 0;
}

/* What a file is called in the prompt, in place of the folder that it was read from: its last part,
 * unless another one has the same; NULL: it has no name. */
static const char *title_of(const arg_list *pieces, size_t index) {
    const arg_item *piece = &pieces->items[index];
    if (!is_file(piece)) return NULL;
    const char *own = basename(piece->text);
    for (size_t i = 0; i < pieces->n; i++) {
        const arg_item *other = &pieces->items[i];
        if (i != index && is_file(other) && strcmp(basename(other->text), own) == 0) {
            return piece->text;
        }
    }
    return own;
}

static bool names_wanted(const char *names, const arg_list *pieces) {
    size_t n_files = 0;
    for (size_t i = 0; i < pieces->n; i++) n_files += is_file(&pieces->items[i]);
    return strcmp(names, "on") == 0 || (strcmp(names, "auto") == 0 && n_files > 1);
}

/* Appends the text and the tokens of one piece. */
static cca_status read_document(documents *d, const arg_item *piece, const char *title,
                                const input_options *input, term *t, cca_error *err) {
    input_text text;
    cca_status status = input_read_piece(&text, input, piece, t, err);
    if (!status) status = prompt_add_document(&d->prompt, title, &text, input->special, err);
    if (!status) {
        d->items[d->n++] = (document){.name = text.sources[0].name,
                                      .text = text.text,
                                      .first = d->prompt.text_begin,
                                      .last = d->prompt.text_end};
        text.text = (text_buffer){0};
    }
    input_free(&text);
    return status;
}

/* Nothing can be asked about nothing. */
static cca_status check_empty(const documents *d, term *t, cca_error *err) {
    size_t n_empty = 0;
    for (size_t i = 0; i < d->n; i++) {
        const text_buffer *text = &d->items[i].text;
        n_empty += cca_file_lead(text->bytes, text->size) == text->size;
    }
    for (size_t i = 0; i < d->n && n_empty > 0; i++) {
        const text_buffer *text = &d->items[i].text;
        const char *what = text->size == 0 ? "is empty" : "has nothing but white space";
        if (cca_file_lead(text->bytes, text->size) < text->size) continue;
        if (n_empty == d->n) return cca_fail(err, CCA_NO_FIT, "%s %s", d->items[i].name, what);
        term_warn(t, "%s %s", d->items[i].name, what);
    }
    return CCA_OK;
}

cca_status documents_read(documents *out, const document_options *options, const chat_options *chat,
                          const cca_engine *engine, term *t, cca_error *err) {
    arg_item from_stdin = {'f', "-"};
    arg_list pieces = options->input.pieces;
    size_t n_stdin = 0;
    *out = (documents){0};
    if (pieces.n == 0) {
        if (isatty(STDIN_FILENO)) {
            return cca_fail(err, CCA_USAGE, "no documents: give -f FILE or standard input");
        }
        pieces = (arg_list){&from_stdin, 1, 1};
    }
    for (size_t i = 0; i < pieces.n; i++) {
        n_stdin += pieces.items[i].tag == 'f' && !is_file(&pieces.items[i]);
    }
    if (n_stdin > 1) return cca_fail(err, CCA_USAGE, "standard input can be read only once");
    out->items = calloc(pieces.n, sizeof *out->items);
    if (!out->items) return cca_fail(err, CCA_NO_MEMORY, "no memory for the documents");
    bool named = names_wanted(options->names, &pieces);
    cca_status status = prompt_begin(&out->prompt, chat, engine, err);
    for (size_t i = 0; i < pieces.n && !status; i++) {
        const char *title = named ? title_of(&pieces, i) : NULL;
        status = read_document(out, &pieces.items[i], title, &options->input, t, err);
    }
    return status ? status : check_empty(out, t, err);
}

void documents_free(documents *d) {
    for (size_t i = 0; i < d->n; i++) text_free(&d->items[i].text);
    free(d->items);
    prompt_free(&d->prompt);
    *d = (documents){0};
}

void documents_follow(documents *d) {
    const prompt_own *own = d->prompt.own;
    size_t n = 0;
    for (size_t i = 0; own && i < own->n_parts && n < d->n; i++) {
        const prompt_part *part = &own->parts[i];
        if (part->slot != CCA_SLOT_DOCUMENT) continue;
        d->items[n].first = part->first;
        d->items[n++].last = part->last;
    }
}

cca_status documents_settle(documents *d, size_t n_parts, cca_error *err) {
    cca_status status = prompt_settle(&d->prompt, n_parts, err);
    if (!status) documents_follow(d);
    return status;
}

int64_t documents_n_tokens(const documents *d) {
    return d->items[d->n - 1].last;
}

/* ---- places ---- */

static size_t count_lines(const text_buffer *text, size_t from, size_t to) {
    size_t n = 0;
    for (size_t i = from; i < to; i++) n += text->bytes[i] == '\n';
    return n;
}

place documents_place(const documents *d, size_t index, size_t begin, size_t end) {
    const document *of = &d->items[index];
    size_t line = 1 + count_lines(&of->text, 0, begin);
    size_t more = end > begin ? count_lines(&of->text, begin, end - 1) : 0;
    return (place){of, begin, end, line, line + more};
}

json_t *place_json(const place *p) {
    return json_pack("{s:o, s:I, s:I, s:I, s:I}", "file",
                     output_string(p->of->name, strlen(p->of->name)), "line",
                     (json_int_t)p->first_line, "last_line", (json_int_t)p->last_line, "begin",
                     (json_int_t)p->begin, "end", (json_int_t)p->end);
}

const char *place_text(char out[PLACE_TEXT], const place *p) {
    char lines[64];
    if (p->first_line == p->last_line) {
        snprintf(lines, sizeof lines, "line %zu", p->first_line);
    } else {
        snprintf(lines, sizeof lines, "lines %zu-%zu", p->first_line, p->last_line);
    }
    snprintf(out, PLACE_TEXT, "%s, %s, bytes %zu-%zu", p->of->name, lines, p->begin, p->end);
    return out;
}
