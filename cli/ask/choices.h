/* Multiple choice: texts of which each is scored as if it were the answer.
 *
 *     json_t *texts;
 *     choices_split(&texts, "yes,no\\, never", "--choices", &err); // an array of two texts
 *     choices c;
 *     choices_encode(&c, texts, &prompt, &err);
 *     ... the session is brought to the prompt's end ...
 *     choices_score(&c, session, vocab_size, &err);
 *     const choice *best = &c.items[c.best];
 *     choices_free(&c);
 *
 * A choice's tokens are those of its text, encoded as the template encodes an answer: behind a
 * space where it puts one there. Its score is the sum of log p(token | prompt, tokens before it) of
 * the model's own distribution, without a token that would end the answer: the natural log of the
 * probability that an answer begins so. */
#ifndef CCA_CLI_CHOICES_H
#define CCA_CLI_CHOICES_H

#include "cli/prompt.h"

typedef struct choice {
    const char *text;
    size_t size;
    const int32_t *ids;
    int64_t n_tokens;
    double logprob;
    double probability; /* its share among the choices: exp(logprob) over the sum of all of them */
} choice;

typedef struct choices {
    choice *items;
    size_t n, best; /* the likeliest, the first of equals */
    int64_t most;   /* tokens of the longest */
    cca_tokens tokens;
} choices;

/* Texts of a list with commas between them, "\," for a comma in one; white space around them is no
 * part of them. Checked; the caller owns *out, NULL after a failure, and name is for messages.
 * CCA_BAD_TEXT for what is no UTF-8. */
cca_status choices_split(json_t **out, const char *list, const char *name, cca_error *err);
/* CCA_USAGE unless it is an array of texts, one at least, none without words and none twice. */
cca_status choices_check(const json_t *texts, const char *name, cca_error *err);

/* The tokens of texts that were checked, which are borrowed, as an answer to a prompt. free is due
 * in any case. */
cca_status choices_encode(choices *out, const json_t *texts, const prompt *p, cca_error *err);
void choices_free(choices *c);

/* Scores them from where the session is, at the end of a prompt that was evaluated last, and leaves
 * it there. Each token recalls for itself, as generated ones do. After a failure the session is
 * somewhere behind that. Statuses of cca_session_eval. */
cca_status choices_score(choices *c, cca_session *session, int64_t vocab_size, cca_error *err);

/* [{"text", "logprob", "logprob_per_byte", "tokens", "probability"}] */
json_t *choices_json(const choices *c);

#endif
