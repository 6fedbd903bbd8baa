/* What cca ask writes: answers, records, statistics. */
#include "cli/ask/ask.h"

#include "base/utf8.h"
#include "cli/ask/quotes.h"
#include "cli/ask/sources.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The answer as one line. */
static void write_line(output *out, const text_buffer *text) {
    size_t size;
    const char *words = text_trimmed(&size, text);
    for (size_t i = 0; i < size; i++) {
        bool breaks = words[i] == '\n' || words[i] == '\r';
        output_write(out, breaks ? " " : words + i, 1);
    }
    output_write(out, "\n", 1);
}

/* What was found out about an answer. */
typedef struct findings {
    quotes quotes;
    sources sources;
} findings;

static json_t *answer_record(const asking *a, const exchange *e, const findings *f) {
    const decoder *d = &a->decoder;
    json_t *record = json_pack("{s:o, s:o, s:s, s:o, s:o}", "question",
                               output_string(e->question->text, e->question->size), "text",
                               output_string(e->text->bytes, e->text->size), "stop_reason",
                               d->stop_reason, "tokens", decoder_tokens_json(d, e->n_reused),
                               "timing", decoder_timing_json(d, a->load_s, e->prefill_s));
    if (record && e->choices) output_put(&record, "choices", choices_json(e->choices));
    output_put(&record, "logprob", output_real(true, e->logprob));
    output_put(&record, "probability", output_real(true, exp(e->logprob)));
    if (record && e->question->document) {
        json_object_set(record, "document", e->question->document);
    }
    if (record && e->question->id) json_object_set(record, "id", e->question->id);
    if (record && a->o->quotes) {
        output_put(&record, "quotes", quotes_json(&f->quotes, e->text->bytes));
    }
    if (record && a->n_sources > 0) {
        output_put(&record, "sources", sources_json(&f->sources));
        output_put(&record, "source_ends",
                   json_pack("{s:f, s:f}", "start", f->sources.start, "end", f->sources.end));
    }
    if (record && a->o->jsonl) output_put(&record, "event", json_string("answer"));
    return record;
}

enum { HOW_TEXT = DECODER_LOOKUP_TEXT + 160 };

/* How the answer was come by. */
static const char *how_text(char out[HOW_TEXT], const decoder *d, const choices *c) {
    char guesses[DECODER_LOOKUP_TEXT];
    if (c) {
        snprintf(out, HOW_TEXT,
                 "%zu choice%s with %zu tokens in %.3g s; the answer has %.3g %% of their "
                 "probability",
                 c->n, term_plural((int64_t)c->n), c->tokens.n, d->decode_s,
                 100 * c->items[c->best].probability);
    } else {
        snprintf(out, HOW_TEXT, "generated %lld token%s, %.4g tok/s%s; first token after %.3g s",
                 (long long)d->n_generated, term_plural(d->n_generated),
                 term_per_second(d->n_decoded, d->decode_s), decoder_lookup_text(guesses, d),
                 d->ttft_s);
    }
    return out;
}

static void tell(asking *a, const exchange *e) {
    const decoder *d = &a->decoder;
    int64_t n_prefilled = d->n_prompt - e->n_reused;
    char how[HOW_TEXT];
    term_note(&a->term,
              "question %zu: prompt %lld token%s (%lld reused, %lld prefilled), %.4g tok/s; %s",
              a->n_asked, (long long)d->n_prompt, term_plural(d->n_prompt), (long long)e->n_reused,
              (long long)n_prefilled, term_per_second(n_prefilled, e->prefill_s),
              how_text(how, d, e->choices));
}

/* Nobody is to take a part of an answer for all of it. */
static void tell_cut(asking *a) {
    const decoder *d = &a->decoder;
    if (strcmp(d->stop_reason, "length") == 0 && d->most > 0) {
        term_note(&a->term,
                  "answer %zu is cut: it has reached the %lld tokens that -n (--max-answer) allows",
                  a->n_asked, (long long)d->most);
    }
    if (strcmp(d->stop_reason, "context") == 0) {
        term_note(&a->term,
                  "answer %zu is cut: with it the prompt has reached the %lld tokens that "
                  "there is room for, which -c changes",
                  a->n_asked, (long long)d->limit);
    }
}

/* A text on a line, in quotation marks, cut where it is long; the caller frees it. */
static char *quoted(const char *text, size_t size) {
    enum { LONGEST = 160 };
    bool cut = size > LONGEST;
    size_t shown = cut ? cca_utf8_valid(text, LONGEST) : size;
    char *line;
    if (asprintf(&line, "\"%.*s%s\"", (int)shown, text, cut ? " \u2026" : "") < 0) return NULL;
    for (char *c = line; *c; c++) *c = (unsigned char)*c < ' ' ? ' ' : *c;
    return line;
}

/* Where most of the attention is at an end of the documents, it may be for the place's sake. */
static void tell_ends(asking *a, const sources *s) {
    const double most = 0.5;
    if (s->start > most) {
        term_note(
            &a->term,
            "the start of the documents has %.0f %% of the attention; first tokens attract it "
            "whatever they say",
            100 * s->start);
    }
    if (s->end > most) {
        term_note(&a->term,
                  "the end of the documents has %.0f %% of the attention; so near the question "
                  "tokens attract some of it whatever they say",
                  100 * s->end);
    }
}

static cca_status tell_findings(asking *a, const exchange *e, const findings *f, cca_error *err) {
    char where[PLACE_TEXT];
    for (size_t i = 0; i < f->quotes.n; i++) {
        const quote *q = &f->quotes.items[i];
        char *text = quoted(e->text->bytes + q->begin, q->end - q->begin);
        if (!text) return cca_fail(err, CCA_NO_MEMORY, "no memory for a quotation");
        term_note(&a->term, "quote %s: %s", text,
                  q->found ? place_text(where, &q->at) : "not found in the documents");
        free(text);
    }
    for (size_t i = 0; i < f->sources.n; i++) {
        const passage *p = &f->sources.items[i];
        char *text = quoted(p->at.of->text.bytes + p->at.begin, p->at.end - p->at.begin);
        if (!text) return cca_fail(err, CCA_NO_MEMORY, "no memory for a source");
        term_note(&a->term, "source %zu: %s, %.0f %%: %s", i + 1, place_text(where, &p->at),
                  100 * p->share, text);
        free(text);
    }
    tell_ends(a, &f->sources);
    return CCA_OK;
}

static cca_status find(findings *f, asking *a, const exchange *e, cca_error *err) {
    cca_status status = CCA_OK;
    if (a->o->quotes) {
        status = quotes_check(&f->quotes, e->text->bytes, e->text->size, &a->docs, err);
    }
    if (!status && a->n_sources > 0) {
        status = sources_find(&f->sources, a->session, &a->docs, a->n_sources, err);
    }
    return status;
}

static cca_status write_answer(asking *a, const exchange *e, const findings *f, bool written,
                               cca_error *err) {
    if (a->o->jsonl || a->o->output.json) {
        json_t *record = answer_record(a, e, f);
        if (a->o->jsonl) {
            output_json(&a->out, record);
        } else if (json_array_append_new(a->answers, record) != 0) {
            return cca_fail(err, CCA_NO_MEMORY, "no memory for the record");
        }
    } else if (written) {
        output_write(&a->out, "\n", 1);
    } else {
        write_line(&a->out, e->text);
    }
    return output_flush(&a->out, err);
}

cca_status ask_report(asking *a, const exchange *e, bool written, cca_error *err) {
    findings f = {0};
    cca_status status = find(&f, a, e, err);
    if (!status) status = write_answer(a, e, &f, written, err);
    if (!status) status = tell_findings(a, e, &f, err);
    tell_cut(a);
    tell(a, e);
    quotes_free(&f.quotes);
    sources_free(&f.sources);
    return status;
}

static void write_record(asking *a) {
    json_t *all = json_pack(
        "{s:s, s:s, s:I, s:O, s:o, s:o, s:o, s:I, s:O}", "schema", "cca.ask.1", "chat_template",
        prompt_template_name(&a->docs.prompt), "document_tokens", (json_int_t)a->document_tokens,
        "answers", a->answers, "memory", cli_plan_json(&a->plan), "attention",
        cli_attention_json(&a->context, a->engine), "ranks", cli_ranks_json(a->session), "seed",
        (json_int_t)a->decoder.options.seed, "warnings", a->term.warnings);
    if (all && a->o->jsonl) {
        json_object_set_new(all, "event", json_string("end"));
        json_object_del(all, "answers");
    }
    output_json(&a->out, all);
}

cca_status ask_finish(asking *a, cca_error *err) {
    char peak[TERM_SIZE_TEXT];
    if (a->o->jsonl || a->o->output.json) write_record(a);
    cca_status status = output_flush(&a->out, err);
    term_note(&a->term, "%zu document%s, %lld token%s, read once; peak memory %s", a->n_documents,
              term_plural((int64_t)a->n_documents), (long long)a->document_tokens,
              term_plural(a->document_tokens), term_size(peak, term_peak_memory()));
    cli_ranks_tell(a->session, &a->term);
    return status;
}
