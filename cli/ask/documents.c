#include "cli/ask/documents.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Appends the text and the tokens of one piece. */
static cca_status read_document(documents *d, const arg_item *piece, const input_options *input,
                                cca_error *err) {
    input_text text;
    cca_status status = input_read_piece(&text, input, piece, NULL, err);
    if (!status) status = prompt_add(&d->prompt, CCA_SLOT_DOCUMENT, &text, input->special, err);
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

static cca_status no_pieces(cca_error *err) {
    return cca_fail(err, CCA_USAGE, "no documents: give -f FILE or standard input");
}

cca_status documents_read(documents *out, const input_options *input, const chat_options *chat,
                          const cca_engine *engine, cca_error *err) {
    static const arg_item from_stdin = {'f', "-"};
    const arg_item *items = input->pieces.items;
    size_t n = input->pieces.n, n_stdin = 0;
    *out = (documents){0};
    if (n == 0) {
        if (isatty(STDIN_FILENO)) return no_pieces(err);
        items = &from_stdin;
        n = 1;
    }
    for (size_t i = 0; i < n; i++) {
        n_stdin += items[i].tag == 'f' && strcmp(items[i].text, "-") == 0;
    }
    if (n_stdin > 1) return cca_fail(err, CCA_USAGE, "standard input can be read only once");
    out->items = calloc(n, sizeof *out->items);
    if (!out->items) return cca_fail(err, CCA_NO_MEMORY, "no memory for the documents");
    cca_status status = prompt_begin(&out->prompt, chat, engine, err);
    for (size_t i = 0; i < n && !status; i++) status = read_document(out, &items[i], input, err);
    return status;
}

void documents_free(documents *d) {
    for (size_t i = 0; i < d->n; i++) text_free(&d->items[i].text);
    free(d->items);
    prompt_free(&d->prompt);
    *d = (documents){0};
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
