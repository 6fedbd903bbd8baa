/* Which documents cca ask reads, and how long its prompts get. */
#include "cli/ask/ask.h"

#include <stdio.h>
#include <stdlib.h>

/* Where questions may come that nobody knows yet, there is room for so many tokens of them. */
enum { UNKNOWN_ROOM = 8192 };

int64_t ask_answer_bound(const asking *a, int64_t most) {
    const context_options *context = &a->context;
    if (most >= 0 || !context->beyond_trained || context->ctx_size > 0) return most;
    return cca_engine_info(a->engine)->trained_length;
}

cca_status ask_encode(asking *a, const question *q, cca_error *err) {
    bool further = a->base > documents_n_tokens(&a->docs);
    prompt *p = &a->docs.prompt;
    prompt_cut(p, a->base, further ? CCA_SLOT_ANSWER : CCA_SLOT_DOCUMENT);
    if (p->own) prompt_own_keep(p, a->base_parts);
    cca_status status = prompt_ask(p, q->text, q->size, err);
    a->same = cca_min(a->same, p->n_same);
    if (!status) documents_follow(&a->docs);
    return status;
}

void ask_set_base(asking *a) {
    const prompt *p = &a->docs.prompt;
    a->base = prompt_length(p);
    a->base_parts = p->own ? p->own->n_parts : 0;
}

bool ask_chooses(const asking *a) {
    bool any = a->questions.choices || a->questions.live == QUESTIONS_JSON;
    for (size_t i = 0; i < a->questions.n; i++) any |= a->questions.items[i].choices != NULL;
    return any;
}

/* ---- reading ---- */

/* The options of a run that has a question's documents. */
static cca_status options_of(document_options *out, const asking *a, const question *q,
                             cca_error *err) {
    size_t n = question_n_paths(q);
    arg_item *items = calloc(n, sizeof *items);
    if (!items) return cca_fail(err, CCA_NO_MEMORY, "no memory for the names of documents");
    for (size_t i = 0; i < n; i++) items[i] = (arg_item){'f', question_path(q, i)};
    *out = a->o->documents;
    out->input.pieces = (arg_list){items, n, n};
    return CCA_OK;
}

/* Says which question it was that something went wrong with. */
static cca_status name_line(const question *q, cca_status status, cca_error *err) {
    if (!status || !q || !q->document) return status;
    cca_error why = *err;
    return cca_fail(err, status, "%s, line %zu: %s", q->at.file, q->at.line, why.text);
}

cca_status ask_read(asking *a, const question *q, term *t, cca_error *err) {
    document_options options = a->o->documents;
    cca_status status = CCA_OK;
    bool named = q && q->document;
    documents_free(&a->docs);
    if (named) status = options_of(&options, a, q, err);
    if (status) return status;
    status = documents_read(&a->docs, &options, &a->o->chat, a->engine, t, err);
    if (named) free(options.input.pieces.items);
    a->about = q;
    if (!status) ask_set_base(a);
    return name_line(q, status, err);
}

/* ---- measuring ---- */

typedef struct lengths {
    int64_t longest, positions;
    int64_t answers; /* about the last documents, together */
    bool endless;
} lengths;

/* Tokens of a question's longest choice. */
static cca_status measure_choices(const asking *a, const question *q, int64_t *most,
                                  cca_error *err) {
    choices c;
    cca_status status = choices_encode(&c, q->choices, &a->docs.prompt, err);
    *most = c.most;
    choices_free(&c);
    return status;
}

static cca_status check_length(const asking *a, const question *q, int64_t n, cca_error *err) {
    const char *what = a->o->follow_up  ? "the prompt (documents and all questions)"
                       : ask_chooses(a) ? "the prompt (documents, longest question and choice)"
                                        : "the prompt (documents and longest question)";
    return name_line(q, cli_check_length(what, n, &a->context, a->engine, err), err);
}

/* The questions first … last - 1, which are about the documents that were read. */
static cca_status measure_questions(asking *a, lengths *l, size_t first, size_t last,
                                    cca_error *err) {
    int64_t longest = documents_n_tokens(&a->docs);
    const question *of = first < last ? &a->questions.items[first] : NULL;
    cca_status status = CCA_OK;
    l->answers = 0;
    for (size_t i = first; i < last && !status; i++) {
        const question *q = &a->questions.items[i];
        int64_t most = ask_answer_bound(a, q->most);
        status = ask_encode(a, q, err);
        if (!status && q->choices) status = measure_choices(a, q, &most, err);
        int64_t n = prompt_length(&a->docs.prompt), all = q->choices ? n + most : n;
        l->answers = a->o->follow_up ? l->answers + most : most;
        if (all > longest) of = q;
        longest = cca_max(longest, all);
        l->positions = cca_max(l->positions, n + l->answers);
        l->endless |= most < 0;
        if (a->o->follow_up) ask_set_base(a);
    }
    l->longest = cca_max(l->longest, longest);
    l->positions = cca_max(l->positions, longest);
    return status ? status : check_length(a, of, longest, err);
}

/* Reads documents and measures the questions about them, after which they stand alone again. */
static cca_status measure_documents(asking *a, lengths *l, size_t first, size_t last,
                                    cca_error *err) {
    const question *q = first < last ? &a->questions.items[first] : NULL;
    cca_status status = ask_read(a, q, &a->term, err);
    if (status) return status;
    const int64_t start = documents_n_tokens(&a->docs);
    const size_t start_parts = a->base_parts;
    status = measure_questions(a, l, first, last, err);
    if (status) return status;
    prompt_cut(&a->docs.prompt, start, CCA_SLOT_DOCUMENT);
    status = documents_settle(&a->docs, start_parts, err);
    ask_set_base(a);
    a->same = INT64_MAX;
    return status;
}

cca_status ask_measure(asking *a, int64_t *longest, int64_t *positions, cca_error *err) {
    const questions *q = &a->questions;
    lengths l = {0};
    cca_status status = CCA_OK;
    a->many = q->live;
    for (size_t first = 0, last; !status && (first == 0 || first < q->n); first = last) {
        for (last = first + 1; last < q->n && q->items[last].again; last++) a->many = true;
        status = measure_documents(a, &l, first, cca_min(last, q->n), err);
    }
    int64_t most = ask_answer_bound(a, a->o->questions.most);
    if (q->live) {
        l.positions = cca_max(l.positions, l.longest + l.answers + UNKNOWN_ROOM + most);
        l.endless |= most < 0;
    }
    *longest = l.longest;
    *positions = l.endless ? INT64_MAX : l.positions;
    return status;
}
