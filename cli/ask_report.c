/* What cca ask writes: answers, records, statistics. */
#include "cli/ask.h"

#include "cli/quotes.h"

#include <stdlib.h>
#include <string.h>

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* The answer as one line. */
static void write_line(output *out, const text_buffer *text) {
    size_t from = 0, end = text->size;
    while (from < end && is_space(text->bytes[from])) from++;
    while (end > from && is_space(text->bytes[end - 1])) end--;
    for (; from < end; from++) {
        bool breaks = text->bytes[from] == '\n' || text->bytes[from] == '\r';
        output_write(out, breaks ? " " : text->bytes + from, 1);
    }
    output_write(out, "\n", 1);
}

static json_t *answer_record(const asking *a, const exchange *e, const quotes *q) {
    const decoder *d = &a->decoder;
    json_t *tokens =
        json_pack("{s:I, s:I, s:I, s:I}", "prompt", (json_int_t)d->n_prompt, "reused",
                  (json_int_t)e->n_reused, "prefilled", (json_int_t)(d->n_prompt - e->n_reused),
                  "generated", (json_int_t)d->n_generated);
    json_t *record =
        json_pack("{s:o, s:o, s:s, s:o, s:o}", "question",
                  output_string(e->question->text, e->question->size), "text",
                  output_string(e->text->bytes, e->text->size), "stop_reason", d->stop_reason,
                  "tokens", tokens, "timing", decoder_timing_json(d, a->load_s, e->prefill_s));
    if (record && e->question->id) json_object_set(record, "id", e->question->id);
    if (record && a->o->quotes)
        json_object_set_new(record, "quotes", quotes_json(q, e->text->bytes));
    if (record && a->o->jsonl) json_object_set_new(record, "event", json_string("answer"));
    return record;
}

static double per_second(int64_t n, double seconds) {
    return seconds > 0 ? (double)n / seconds : 0;
}

static void tell(asking *a, const exchange *e) {
    const decoder *d = &a->decoder;
    int64_t n_prefilled = d->n_prompt - e->n_reused;
    term_note(&a->term,
              "question %zu: prompt %lld tokens (%lld reused, %lld prefilled), %.4g tok/s; "
              "generated %lld tokens, %.4g tok/s; first token after %.3g s",
              a->n_asked, (long long)d->n_prompt, (long long)e->n_reused, (long long)n_prefilled,
              per_second(n_prefilled, e->prefill_s), (long long)d->n_generated,
              per_second(d->n_decoded, d->decode_s), d->ttft_s);
}

/* A line each. */
static void tell_quotes(asking *a, const exchange *e, const quotes *q) {
    for (size_t i = 0; i < q->n; i++) {
        char where[PLACE_TEXT] = "not found in the documents";
        const quote *item = &q->items[i];
        if (item->found) place_text(where, &item->at);
        char *text = strndup(e->text->bytes + item->begin, item->end - item->begin);
        for (char *c = text; c && *c; c++) *c = (unsigned char)*c < ' ' ? ' ' : *c;
        term_note(&a->term, "quote \"%s\": %s", text ? text : "", where);
        free(text);
    }
}

static cca_status write_answer(asking *a, const exchange *e, const quotes *q, bool written,
                               cca_error *err) {
    if (a->o->jsonl || a->o->output.json) {
        json_t *record = answer_record(a, e, q);
        if (a->o->jsonl)
            output_json(&a->out, record);
        else if (json_array_append_new(a->answers, record) != 0)
            return cca_fail(err, CCA_NO_MEMORY, "no memory for the record");
    } else if (written) {
        output_write(&a->out, "\n", 1);
    } else {
        write_line(&a->out, e->text);
    }
    return output_flush(&a->out, err);
}

cca_status ask_report(asking *a, const exchange *e, bool written, cca_error *err) {
    quotes q = {0};
    cca_status status = CCA_OK;
    if (a->o->quotes) status = quotes_check(&q, e->text->bytes, e->text->size, &a->docs, err);
    if (!status) status = write_answer(a, e, &q, written, err);
    tell_quotes(a, e, &q);
    tell(a, e);
    quotes_free(&q);
    return status;
}

static void write_record(asking *a) {
    json_t *all = json_pack("{s:s, s:s, s:I, s:O, s:o, s:o, s:I, s:O}", "schema", "cca.ask.1",
                            "chat_template", cca_chat_name(a->prompt.chat), "document_tokens",
                            (json_int_t)documents_n_tokens(&a->docs), "answers", a->answers,
                            "memory", cli_plan_json(&a->plan), "attention",
                            cli_attention_json(&a->o->context, a->engine), "seed",
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
    term_note(&a->term, "%zu documents, %lld tokens, read once; peak memory %s", a->docs.n,
              (long long)documents_n_tokens(&a->docs), term_size(peak, term_peak_memory()));
    return status;
}
