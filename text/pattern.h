/* Regular expressions as Hugging Face's tokenizers write them, for Oniguruma, run by PCRE2.
 *
 *     cca_pattern pattern;
 *     cca_pattern_open(&pattern, "\\p{N}{1,3}", 10, "tokenizer.json", &err);
 *     cca_matcher *matcher = cca_matcher_new(&pattern);
 *     cca_matcher_start(matcher, text, size);
 *     while (cca_matcher_next(&found, matcher, &begin, &end, &err) == CCA_OK && found) ...
 *     cca_matcher_free(matcher);
 *     cca_pattern_close(&pattern);
 *
 * What the two read alike is taken over, classes are spelled out as Oniguruma has them (Unicode
 * 16), and what they read differently, or what PCRE2 has alone, is refused by name. A cca_pattern
 * is immutable and may be shared by threads, a cca_matcher not. */
#ifndef CCA_PATTERN_H
#define CCA_PATTERN_H

#include "base/base.h"

typedef struct cca_pattern {
    void *code; /* PCRE2's */
} cca_pattern;

/* name stands in front of the messages; CCA_BAD_MODEL quotes the pattern and says what is not
 * supported. */
cca_status cca_pattern_open(cca_pattern *out, const char *text, size_t size, const char *name,
                            cca_error *err);
void cca_pattern_close(cca_pattern *pattern);

/* What running a pattern needs, for one text at a time; NULL without memory. */
typedef struct cca_matcher cca_matcher;
cca_matcher *cca_matcher_new(const cca_pattern *pattern);
void cca_matcher_free(cca_matcher *matcher);

/* From the start of a text of valid UTF-8, all of whose matches cca_matcher_next gives. */
void cca_matcher_start(cca_matcher *matcher, const char *text, size_t size);

/* The next match text[*begin … *end), perhaps an empty one, but not right behind another; *found is
 * false behind the last. CCA_RUNTIME where PCRE2's limits end the search, CCA_NO_MEMORY. */
cca_status cca_matcher_next(bool *found, cca_matcher *matcher, size_t *begin, size_t *end,
                            cca_error *err);

#endif
