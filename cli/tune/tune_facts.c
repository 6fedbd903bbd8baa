/* Facts that are planted into a text to be asked for. */
#include "cli/tune/tune.h"

#include "base/utf8.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const adjectives[16] = {
    "ancient", "broken",   "crooked", "dusty", "eastern", "forgotten", "hollow", "lonely",
    "narrow",  "northern", "old",     "quiet", "ruined",  "stone",     "tall",   "wooden"};
static const char *const buildings[16] = {
    "abbey",      "barn",   "bridge", "cellar", "chapel",      "cottage", "factory", "granary",
    "lighthouse", "market", "mill",   "museum", "observatory", "palace",  "station", "tower"};

/* In wordings that the model that ships was trained on. */
static const struct {
    const char *before, *between, *question, *mark;
} wordings[3] = {
    {"The secret code of the", "is", "What is the secret code of the", "?"},
    {"To enter the", "one needs the code", "Which code opens the", "?"},
    {"Remember this: the code of the", "is", "Tell me the code of the", "."},
};

/* Steps that share no factor with 256 and 90000 visit each place and code once before any twice. */
void tune_make_facts(tune_fact *out, int n) {
    for (int i = 0; i < n; i++) {
        int place = (100 + i * 149) % TUNE_MOST_FACTS;
        const char *adjective = adjectives[place / 16], *building = buildings[place % 16];
        snprintf(out[i].code, TUNE_CODE_TEXT, "%d", 10000 + (38213 + i * 56377) % 90000);
        snprintf(out[i].statement, TUNE_FACT_TEXT, "%s %s %s %s %s.", wordings[i % 3].before,
                 adjective, building, wordings[i % 3].between, out[i].code);
        snprintf(out[i].question, TUNE_FACT_TEXT, "%s %s %s%s", wordings[i % 3].question, adjective,
                 building, wordings[i % 3].mark);
    }
}

/* ---- planting ---- */

/* What a fact may stand behind, the best first. */
typedef enum seam { AT_PARAGRAPH, AT_SENTENCE, AT_LINE, AT_WORD, N_SEAMS } seam;

static bool is_seam(const char *text, size_t at, seam kind) {
    char last = at > 0 ? text[at - 1] : '\0', before = at > 1 ? text[at - 2] : '\0';
    switch (kind) {
    case AT_PARAGRAPH: return last == '\n' && before == '\n';
    case AT_SENTENCE: return isspace((unsigned char)last) && before && strchr(".!?", before);
    case AT_LINE: return last == '\n';
    default: return last == ' ';
    }
}

/* The next good place from a byte on, before another; without one, the start of a character. */
static size_t find_seam(const char *text, size_t from, size_t to) {
    for (int kind = 0; kind < N_SEAMS; kind++) {
        for (size_t at = from; at < to; at++) {
            if (is_seam(text, at, (seam)kind)) return at;
        }
    }
    while (from < to && cca_utf8_continues(text[from])) from++;
    return from;
}

/* Appends text from … to - 1, and moves the bytes that are no UTF-8 along. */
static bool append_part(input_text *out, const input_text *text, size_t from, size_t to) {
    size_t moved = out->text.size - from;
    for (size_t i = 0; i < text->n_bad; i++) {
        if (text->bad[i] >= from && text->bad[i] < to) {
            out->bad[out->n_bad++] = text->bad[i] + moved;
        }
    }
    return text_append(&out->text, text->text.bytes + from, to - from);
}

static bool append_fact(input_text *out, const tune_fact *fact, const char *text, size_t at) {
    const char *before = "", *behind = " ";
    if (is_seam(text, at, AT_PARAGRAPH)) {
        behind = "\n\n";
    } else if (is_seam(text, at, AT_LINE)) {
        behind = "\n";
    } else if (at > 0 && !isspace((unsigned char)text[at - 1])) {
        before = " ";
    }
    return text_append(&out->text, before, strlen(before)) &&
           text_append(&out->text, fact->statement, strlen(fact->statement)) &&
           text_append(&out->text, behind, strlen(behind));
}

cca_status tune_plant_facts(input_text *out, const input_text *text, size_t size,
                            const tune_fact *facts, int n, cca_error *err) {
    size_t at = 0;
    out->bad = calloc(text->n_bad + 1, sizeof *out->bad);
    bool done = out->bad != NULL;
    for (int i = 0; i < n && done; i++) {
        size_t from = size / (size_t)n * (size_t)i + size / (size_t)n / 2;
        size_t next = find_seam(text->text.bytes, from, from + size / (size_t)n / 2);
        done =
            append_part(out, text, at, next) && append_fact(out, &facts[i], text->text.bytes, next);
        at = next;
    }
    if (done && append_part(out, text, at, size)) return CCA_OK;
    return cca_fail(err, CCA_NO_MEMORY, "no memory for the document");
}

bool tune_is_right(const tune_fact *fact, const char *given, size_t size) {
    size_t length = strlen(fact->code);
    for (size_t i = 0; i + length <= size; i++) {
        if (memcmp(given + i, fact->code, length) != 0) continue;
        bool begins = i == 0 || !isdigit((unsigned char)given[i - 1]);
        bool ends = i + length == size || !isdigit((unsigned char)given[i + length]);
        if (begins && ends) return true;
    }
    return false;
}
