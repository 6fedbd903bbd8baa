#include "text/added_tokens.h"

#include "base/utf8.h"
#include "text/ranges.h"

#include <utf8proc.h>

#include <stdlib.h>
#include <string.h>

const cca_added_key cca_added_keys[CCA_N_ADDED_KEYS] = {
    {"cca.normalized_token_ids", CCA_ADDED_NORMALIZED},
    {"cca.lstrip_token_ids", CCA_ADDED_LSTRIP},
    {"cca.rstrip_token_ids", CCA_ADDED_RSTRIP},
    {"cca.single_word_token_ids", CCA_ADDED_SINGLE_WORD},
};

static int by_first_byte_then_length(const void *a, const void *b) {
    const cca_added_token *x = a, *y = b;
    uint8_t i = (uint8_t)x->text[0], j = (uint8_t)y->text[0];
    if (i != j) return i < j ? -1 : 1;
    if (x->size != y->size) return x->size > y->size ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

void cca_added_sort(cca_added_list *list) {
    if (list->n > 0) qsort(list->tokens, list->n, sizeof *list->tokens, by_first_byte_then_length);
    memset(list->first, 0, sizeof list->first);
    memset(list->n_sorts, 0, sizeof list->n_sorts);
    for (size_t i = 0; i < list->n; i++) {
        list->first[(uint8_t)list->tokens[i].text[0] + 1]++;
        list->n_sorts[list->tokens[i].flags & (CCA_ADDED_CONTROL | CCA_ADDED_NORMALIZED)]++;
    }
    for (int byte = 0; byte < 256; byte++) list->first[byte + 1] += list->first[byte];
}

/* ---- characters ---- */

static bool is_space(uint32_t point) {
    return (point >= 9 && point <= 13) || point == 0x85 || point == 0x2028 || point == 0x2029 ||
           utf8proc_category((utf8proc_int32_t)point) == UTF8PROC_CATEGORY_ZS;
}

/* Letters, marks, digits and connectors; joiners, letters in circles and squares, and what is newer
 * than utf8proc's tables. */
static bool is_word(uint32_t point) {
    static const int32_t more[][2] = {
        {0x897, 0x897},     {0x1c89, 0x1c8a},   {0x200c, 0x200d},   {0x24b6, 0x24e9},
        {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},   {0x105c0, 0x105f3}, {0x10d40, 0x10d65},
        {0x10d69, 0x10d6d}, {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x10efc, 0x10efc},
        {0x11380, 0x11389}, {0x1138b, 0x1138b}, {0x1138e, 0x1138e}, {0x11390, 0x113b5},
        {0x113b7, 0x113c0}, {0x113c2, 0x113c2}, {0x113c5, 0x113c5}, {0x113c7, 0x113ca},
        {0x113cc, 0x113d3}, {0x113e1, 0x113e2}, {0x116d0, 0x116e3}, {0x11bc0, 0x11be0},
        {0x11bf0, 0x11bf9}, {0x11f5a, 0x11f5a}, {0x13460, 0x143fa}, {0x16100, 0x16139},
        {0x16d40, 0x16d6c}, {0x16d70, 0x16d79}, {0x18cff, 0x18cff}, {0x1ccf0, 0x1ccf9},
        {0x1e5d0, 0x1e5fa}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189},
        {0x2ebf0, 0x2ee5d}};
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)point);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC ||
           cca_in_ranges((int32_t)point, more, sizeof more / sizeof *more);
}

/* The character that text[at] begins, or that ends there; nothing at the ends of the text. */
static uint32_t character(size_t *length, const char *text, size_t size, size_t at, bool before) {
    uint32_t point = CCA_UTF8_REPLACEMENT;
    size_t begin = at;
    *length = 0;
    if (before ? at == 0 : at == size) return point;
    while (before && begin > 0 && at - begin < 4) {
        if (!cca_utf8_continues(text[--begin])) break;
    }
    (void)cca_utf8_next(&point, length, text + begin, size - begin);
    return point;
}

/* ---- search ---- */

/* The longest token that the text starts with, or NULL; led: as if a space stood in front. */
static const cca_added_token *match(const cca_added_search *search, const char *text, size_t size,
                                    bool led) {
    const cca_added_list *list = search->list;
    uint8_t first = led ? ' ' : (uint8_t)text[0];
    for (size_t i = list->first[first]; i < list->first[first + 1]; i++) {
        const cca_added_token *t = &list->tokens[i];
        bool control = t->flags & CCA_ADDED_CONTROL, normal = t->flags & CCA_ADDED_NORMALIZED;
        bool wanted = normal == search->normalized && (!control || (search->asked && !led));
        if (wanted && t->size - led <= size && t->size > led &&
            memcmp(t->text + led, text, t->size - led) == 0) {
            return t;
        }
    }
    return NULL;
}

static bool is_within_word(const char *text, size_t size, size_t begin, size_t end) {
    size_t length;
    return is_word(character(&length, text, size, begin, true)) ||
           is_word(character(&length, text, size, end, false));
}

/* With the white space around it, as far as from. */
static void take_along(cca_found *found, unsigned flags, const char *text, size_t size,
                       size_t from) {
    size_t length;
    while (flags & CCA_ADDED_LSTRIP && found->begin > from &&
           is_space(character(&length, text, size, found->begin, true))) {
        found->begin -= length;
    }
    while (flags & CCA_ADDED_RSTRIP &&
           is_space(character(&length, text, size, found->end, false))) {
        found->end += length;
    }
}

bool cca_added_find(cca_found *found, const cca_added_search *search, const char *text,
                    size_t size) {
    const unsigned *n = &search->list->n_sorts[search->normalized ? CCA_ADDED_NORMALIZED : 0];
    if (n[0] == 0 && (n[CCA_ADDED_CONTROL] == 0 || !search->asked)) return false;
    for (size_t at = found->next; at < size; at++) {
        const cca_added_token *t = match(search, text + at, size - at, false);
        bool part = at == 0 ? search->led : search->parts_led && at == found->end && !found->spaced;
        bool led = !t && part;
        if (led) t = match(search, text + at, size - at, true);
        if (!t) continue;
        size_t end = at + t->size - led, before = found->end;
        if (t->flags & CCA_ADDED_SINGLE_WORD && is_within_word(text, size, at, end)) {
            at = end - 1;
            continue;
        }
        *found = (cca_found){at, end, end, t->id, t->text[0] == ' ', led};
        take_along(found, t->flags, text, size, before);
        return true;
    }
    return false;
}
