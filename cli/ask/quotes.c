#include "cli/ask/quotes.h"

#include <stdlib.h>
#include <string.h>

/* ---- quotation marks ---- */

typedef struct marks {
    const char *open, *close;
} marks;

static const marks pairs[] = {
    {"\"", "\""},         {"\u201c", "\u201d"}, /* “ ” */
    {"\u201e", "\u201c"},                       /* „ “ */
    {"\u201e", "\u201d"},                       /* „ ” */
    {"\u00ab", "\u00bb"},                       /* « » */
    {"\u00bb", "\u00ab"},                       /* » « */
    {"\u2018", "\u2019"},                       /* ‘ ’ */
};
enum { N_PAIRS = sizeof pairs / sizeof *pairs };

static bool starts(const char *text, size_t size, const char *word) {
    size_t n = strlen(word);
    return n <= size && memcmp(text, word, n) == 0;
}

/* Letters and digits, and whatever is not ASCII. */
static bool in_word(char c) {
    unsigned char u = (unsigned char)c, lower = u | 0x20;
    return u >= 0x80 || (lower >= 'a' && lower <= 'z') || (u >= '0' && u <= '9');
}

/* Where the closing mark stands; size where there is none. ’ before a letter is an apostrophe. */
static size_t find_close(const char *text, size_t size, size_t from, const char *close) {
    size_t n = strlen(close);
    bool single = strcmp(close, "\u2019") == 0;
    for (size_t at = from; at < size; at++) {
        if (!starts(text + at, size - at, close)) continue;
        if (!single || at + n == size || !in_word(text[at + n])) return at;
    }
    return size;
}

/* The quotation that begins with the mark at `at`: the nearest closing mark ends it. */
static bool quotation_at(quote *out, const char *text, size_t size, size_t at) {
    *out = (quote){.end = size};
    for (int i = 0; i < N_PAIRS; i++) {
        if (!starts(text + at, size - at, pairs[i].open)) continue;
        size_t begin = at + strlen(pairs[i].open);
        size_t end = find_close(text, size, begin, pairs[i].close);
        if (end < out->end) *out = (quote){.begin = begin, .end = end};
    }
    return out->begin > 0 && out->end < size;
}

/* ---- folded text ---- */

/* How many bytes of white space text starts with. */
static size_t blank(const char *text, size_t size) {
    static const char ascii[] = " \t\n\v\f\r";
    size_t at = 0;
    while (at < size) {
        if (memchr(ascii, text[at], sizeof ascii - 1)) {
            at++;
        } else if (starts(text + at, size - at, "\u00a0")) {
            at += 2;
        } else {
            break;
        }
    }
    return at;
}

/* The byte that stands for the text at *at in a comparison; moves *at behind what it stands for. */
static char fold(const char *text, size_t size, size_t *at) {
    static const struct {
        const char *from;
        char to;
    } typographic[] = {
        {"\u2018", '\''}, {"\u2019", '\''}, {"\u201c", '"'}, {"\u201d", '"'}, {"\u201e", '"'}};
    size_t space = blank(text + *at, size - *at);
    if (space > 0) {
        *at += space;
        return ' ';
    }
    for (size_t i = 0; i < sizeof typographic / sizeof *typographic; i++) {
        if (!starts(text + *at, size - *at, typographic[i].from)) continue;
        *at += strlen(typographic[i].from);
        return typographic[i].to;
    }
    return text[(*at)++];
}

/* Whether the text at `at` begins with the quotation; *end is behind it then. */
static bool matches(const text_buffer *text, size_t at, const char *quotation, size_t size,
                    size_t *end) {
    for (size_t i = 0; i < size;) {
        if (at == text->size) return false;
        if (fold(quotation, size, &i) != fold(text->bytes, text->size, &at)) return false;
    }
    *end = at;
    return true;
}

/* The first place; the quotation begins and ends with no white space. */
static void look_up(quote *q, const char *quotation, size_t size, const documents *docs) {
    for (size_t i = 0; i < docs->n; i++) {
        const text_buffer *text = &docs->items[i].text;
        size_t end;
        for (size_t at = 0; at < text->size; at++) {
            if (!matches(text, at, quotation, size, &end)) continue;
            q->found = true;
            q->at = documents_place(docs, i, at, end);
            return;
        }
    }
}

/* ---- all of an answer ---- */

static bool push(quotes *q, const quote *item) {
    if (q->n == q->capacity) {
        size_t capacity = q->capacity ? 2 * q->capacity : 8;
        quote *items = realloc(q->items, capacity * sizeof *items);
        if (!items) return false;
        q->items = items;
        q->capacity = capacity;
    }
    q->items[q->n++] = *item;
    return true;
}

cca_status quotes_check(quotes *out, const char *text, size_t size, const documents *docs,
                        cca_error *err) {
    *out = (quotes){0};
    for (size_t at = 0; at < size; at++) {
        quote q;
        if (!quotation_at(&q, text, size, at)) continue;
        at = q.end; /* the next one begins behind */
        q.begin += blank(text + q.begin, q.end - q.begin);
        while (q.end > q.begin && blank(text + q.end - 1, 1)) q.end--;
        if (q.begin == q.end) continue;
        look_up(&q, text + q.begin, q.end - q.begin, docs);
        if (!push(out, &q)) return cca_fail(err, CCA_NO_MEMORY, "no memory for the quotations");
    }
    return CCA_OK;
}

void quotes_free(quotes *q) {
    free(q->items);
    *q = (quotes){0};
}

json_t *quotes_json(const quotes *q, const char *text) {
    json_t *all = json_array();
    for (size_t i = 0; i < q->n && all; i++) {
        const quote *item = &q->items[i];
        json_t *one = item->found ? place_json(&item->at) : json_object();
        output_put(&one, "text", output_string(text + item->begin, item->end - item->begin));
        output_put(&one, "found", json_boolean(item->found));
        output_add(&all, one);
    }
    return all;
}
