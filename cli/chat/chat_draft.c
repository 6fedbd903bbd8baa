#include "cli/chat/chat_draft.h"

#include <string.h>

static const char quotes[] = "\"\"\"";
enum { QUOTES = 3 };

static bool ends_with(const char *line, size_t size, const char *end, size_t n) {
    return size >= n && memcmp(line + size - n, end, n) == 0;
}

/* Of a block: up to its end, if that is on this line. */
static bool add_quoted(chat_draft *d, const char *line, size_t size, bool first) {
    bool ends = ends_with(line, size, quotes, QUOTES);
    if (ends) size -= QUOTES;
    d->open = !ends;
    if (ends && size == 0 && !first) { /* alone on its line: the break before it goes */
        d->text.size -= d->text.size > 0;
        return true;
    }
    if (!text_append(&d->text, line, size)) return false;
    return ends || (first && size == 0) || text_append(&d->text, "\n", 1);
}

static bool add_plain(chat_draft *d, const char *line, size_t size) {
    d->open = ends_with(line, size, "\\", 1);
    if (!d->open) return text_append(&d->text, line, size);
    return text_append(&d->text, line, size - 1) && text_append(&d->text, "\n", 1);
}

chat_draft_state chat_draft_add(chat_draft *d, const char *line, size_t size) {
    bool begins = !d->open && size >= QUOTES && memcmp(line, quotes, QUOTES) == 0;
    bool done;
    if (begins) d->quoted = true;
    if (d->quoted) {
        done = add_quoted(d, line + (begins ? QUOTES : 0), size - (begins ? QUOTES : 0), begins);
    } else {
        done = add_plain(d, line, size);
    }
    if (!done) return CHAT_DRAFT_NO_MEMORY;
    return d->open ? CHAT_DRAFT_OPEN : CHAT_DRAFT_DONE;
}

bool chat_draft_is_blank(const chat_draft *d) {
    for (size_t i = 0; i < d->text.size; i++) {
        if (!strchr(" \t\r\n", d->text.bytes[i]) || d->text.bytes[i] == '\0') return false;
    }
    return true;
}

void chat_draft_free(chat_draft *d) {
    text_free(&d->text);
    *d = (chat_draft){0};
}
