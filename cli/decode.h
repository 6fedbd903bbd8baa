/* An answer, token by token, and what ends it: end tokens, stop texts, bounds, signals.
 *
 *     decoder d = {0};
 *     decoder_stops(&d, &stop_list, escape, &err);
 *     decoder_open(&d, &sampling, ignore_eos, &prompt, engine, &err);
 *     decoder_start(&d, session, &prompt, &err);      // for each prompt
 *     d.started = cca_seconds();
 *     ... prefill ...
 *     d.most = n_predict, d.limit = limit;
 *     decoder_run(&d, &answer, &err);
 *     decoder_close(&d); */
#ifndef CCA_CLI_DECODE_H
#define CCA_CLI_DECODE_H

#include "cli/prompt.h"
#include "lookup.h"

typedef struct decoder {
    const cca_tokenizer *tok;
    cca_session *session; /* borrowed */
    cca_sampler *sampler;
    cca_sampler_options options;
    int64_t vocab_size;
    text_buffer *stops;
    size_t n_stops;
    bool ignore_eos;
    bool scored;      /* how likely the tokens are is wanted */
    int32_t chat_end; /* the chat template's end token, or -1 */
    int32_t *end_ids; /* with --ignore-eos: those never taken */
    size_t n_end_ids;
    int64_t draft; /* most tokens that are guessed at once, as the session was made for */
    int64_t most;  /* tokens of the answer; -1: no bound */
    int64_t limit; /* positions of prompt and answer together */

    /* What came of the last run. */
    const char *stop_reason; /* "end", "length", "stop", "context", "interrupted" */
    int64_t n_prompt, n_generated;
    int64_t n_decoded, n_passes;   /* tokens behind the first, and passes that they took */
    int64_t n_drafted, n_accepted; /* tokens guessed, and those of them that were right */
    cca_tokens ids;   /* taken, perhaps beyond a stop text; offsets count in their bytes */
    size_t n_bytes;   /* of them */
    double *logprobs; /* [ids.n], where it is wanted: natural logs of the model's own probabilities,
                         before penalties, cuts and temperature */
    size_t logprobs_capacity;
    double started; /* the clock at the start of prefill */
    double ttft_s, decode_s;

    /* Of a draft: the last token and what is guessed to follow it, the logits behind each, and how
     * far they are those of the text. */
    cca_lookup *lookup; /* of prompt and answer; NULL: no drafts */
    int32_t tried[1 + CCA_MOST_DRAFT];
    const float *logits;
    int64_t n_tried, row;
    double logprob; /* of the token drawn last */
} decoder;

/* Where tokens are guessed, from the text so far (lookup.h). */
typedef struct lookup_options {
    int64_t most; /* tokens of a guess; -1: auto */
} lookup_options;
extern const arg_option lookup_args[];
/* The most tokens that are guessed at once on an engine: context_options.draft and decoder.draft;
 * NULL: where nobody says a number. */
int64_t decoder_draft(const lookup_options *options, const cca_engine *engine);

/* Takes over the --stop texts; CCA_USAGE for an empty one. */
cca_status decoder_stops(decoder *d, const arg_list *stops, bool escape, cca_error *err);
/* Adds one, and drops all but the first n. */
cca_status decoder_add_stop(decoder *d, const char *text, size_t size, cca_error *err);
void decoder_cut_stops(decoder *d, size_t n);
/* Settles options, the seed too. */
cca_status decoder_sampling(decoder *d, const sampling_options *sampling, cca_error *err);
/* Settles the options, and what else ends an answer: the prompt's template has a token or a text
 * for that. */
cca_status decoder_open(decoder *d, const sampling_options *sampling, bool ignore_eos,
                        const prompt *p, const cca_engine *engine, cca_error *err);
void decoder_close(decoder *d);

/* A new sampler and lookup that have seen the prompt, and zeroed counts. */
cca_status decoder_start(decoder *d, cca_session *session, const prompt *p, cca_error *err);
/* From the prefilled session to the end of the answer, which the decoder's stop texts end. An
 * interruption ends it, too: that is a stop_reason, not a failure. */
cca_status decoder_run(decoder *d, answer *a, cca_error *err);

/* The natural log of the probability that the answer begins with its first `size` bytes, by these
 * tokens: the sum of those that begin within them. Ends do not count. */
double decoder_logprob(const decoder *d, size_t size);

/* {"load_s", "prefill_s", "ttft_s", "decode_s"} */
json_t *decoder_timing_json(const decoder *d, double load_s, double prefill_s);
/* Guesses in words, to be told behind the speed; nothing where there were none. */
enum { DECODER_LOOKUP_TEXT = 128 };
const char *decoder_lookup_text(char out[DECODER_LOOKUP_TEXT], const decoder *d);
/* {"prompt", "reused", "prefilled", "generated", "drafted", "accepted", "passes"}, of a prompt of
 * which so many were reused */
json_t *decoder_tokens_json(const decoder *d, int64_t n_reused);

#endif
