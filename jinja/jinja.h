/* Templates in Jinja, as chat templates of model files are.
 *
 *     cca_jinja *template;
 *     cca_jinja_parse(&template, text, size, "model.gguf: tokenizer.chat_template", &err);
 *     json_t *variables = json_pack("{s:[{s:s, s:o}], s:b}", "messages", "role", "user",
 *                                   "content", question, "add_generation_prompt", true);
 *     const json_t *contents[] = {question};
 *     cca_jinja_output out;
 *     cca_jinja_render(&out, template, &(cca_jinja_input){.variables = variables,
 *                      .contents = contents, .n_contents = 1, .now = time(NULL)}, &err);
 *     ... out.bytes; out.spans say which of them come from the question ...
 *     cca_jinja_output_free(&out);
 *     cca_jinja_free(template);
 *
 * The language is Jinja2's, with what transformers gives to chat templates: blocks are trimmed
 * (trim_blocks, lstrip_blocks), break and continue, generation blocks, raise_exception,
 * strftime_now, a tojson that leaves characters as they are. Nothing is escaped for HTML but by
 * the filter that says so. Beyond transformers, whose lists and dicts cannot be changed, append,
 * pop, insert, update and their like work: some public templates want them. There are no
 * files to include, import or extend, and no blocks that these would fill; unknown filters and
 * tests are errors where they are reached.
 *
 * A template is a stranger's program. It sees nothing but its variables and the time; its steps,
 * its memory and the depth of its nesting are bounded, and all that it makes lies in one region
 * that is freed at once.
 *
 * Strings know where they come from: bytes of a content stay bytes of that content when they are
 * joined, cut, trimmed, replaced, capitalised or quoted, so that the reader of the output can tell
 * the template's own words from those of others. */
#ifndef CCA_JINJA_H
#define CCA_JINJA_H

#include "base/base.h"

#include <jansson.h>

enum {
    CCA_JINJA_MOST_BYTES = 256 << 10, /* of a template */
    CCA_JINJA_MOST_NESTED = 100,      /* statements and brackets inside each other */
    CCA_JINJA_MOST_DEPTH = 400,       /* expressions, macros and lists inside each other */
    CCA_JINJA_MOST_RANGE = 100000,    /* numbers of a range */
};

typedef struct cca_jinja cca_jinja;

/* name is for messages ("NAME, line 3: ..."). CCA_BAD_MODEL for what is no template, or too long.
 */
cca_status cca_jinja_parse(cca_jinja **out, const char *text, size_t size, const char *name,
                           cca_error *err);
void cca_jinja_free(cca_jinja *template);

typedef struct cca_jinja_input {
    const json_t *variables;       /* an object */
    const json_t *const *contents; /* those of its strings that are no words of the template */
    size_t n_contents;
    int64_t now;   /* of strftime_now: seconds since 1970 */
    int64_t steps; /* at most; 0: 20 million, and one for 16 bytes of all strings */
    size_t memory; /* bytes at most; 0: 64 MB, and 16 times the strings' */
} cca_jinja_input;

/* Bytes begin … end - 1 of an output are, or stand for, those from `offset` on of a content. */
typedef struct cca_jinja_span {
    size_t begin, end;
    size_t content; /* its index */
    size_t offset;
} cca_jinja_span;

typedef struct cca_jinja_output {
    char *bytes; /* NUL-terminated */
    size_t size;
    cca_jinja_span *spans; /* ascending; what is in none is the template's */
    size_t n_spans;
} cca_jinja_output;

/* CCA_USAGE where the template itself refuses (raise_exception) its variables, CCA_BAD_MODEL where
 * it makes no sense or exceeds a bound, CCA_NO_MEMORY. After a failure out is empty. */
cca_status cca_jinja_render(cca_jinja_output *out, const cca_jinja *template,
                            const cca_jinja_input *input, cca_error *err);
void cca_jinja_output_free(cca_jinja_output *out);

#endif
