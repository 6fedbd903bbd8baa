#include "cli/line_reader.h"

#include "base/again.h"
#include "base/utf8.h"
#include "base/whole_file.h"
#include "cli/clusters.h"
#include "cli/folder.h"
#include "cli/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

enum {
    READ_SIZE = 4096,
    POLL_MS = 100, /* how often signals and the size of the terminal are looked at */
    MOST_REMEMBERED = 1000,
    MOST_PROMPT = 64,
};

struct line_reader {
    term *term;
    const line_options *options;
    char prompt[MOST_PROMPT]; /* with its colours, between marks */
    EditLine *el;             /* NULL: not edited */
    HistoryW *history;
    char *path; /* of the history; NULL: it is kept nowhere */
    char bytes[READ_SIZE];
    size_t at, n;        /* bytes not yet taken: at … n - 1 */
    uint64_t offset, no; /* bytes and lines before the one that is read */
    size_t again;        /* times that the last erasing is still to be done */
    bool pastes;         /* the terminal knows escape sequences, and is asked to mark pastes */
    bool goes_on, interrupted, was_empty, invalid;
    struct winsize size;
};

/* ---- bytes ----------------------------------------------------------------------------- */

static bool same_size(const struct winsize *a, const struct winsize *b) {
    return a->ws_col == b->ws_col && a->ws_row == b->ws_row;
}

/* Rows of the terminal between the line's start and the cursor. */
static int rows_above(const LineInfoW *line, int columns, int prompt_width) {
    int rows = 0, column = prompt_width;
    for (const wchar_t *c = line->buffer; c < line->cursor; c++) {
        int width = wcwidth(*c);
        bool wraps = *c == L'\n' || column + width > columns;
        rows += wraps;
        column = (wraps ? 0 : column) + (width > 0 ? width : 0);
    }
    return column == columns ? rows + 1 : rows;
}

/* Draws the line anew from where it begins: terminals wrap what they show when their width changes,
 * which libedit knows nothing of. */
static void draw_resized(const line_reader *l) {
    int width = l->goes_on ? 4 : (int)strlen(l->options->prompt) + 1;
    int rows = rows_above(el_wline(l->el), l->size.ws_col > 0 ? l->size.ws_col : 80, width);
    if (!l->pastes) {
        fputs("\n", stderr);
    } else if (rows > 0) {
        fprintf(stderr, "\r\033[%dA\033[J", rows);
    } else {
        fputs("\r\033[J", stderr);
    }
}

static bool is_cooked(void) {
    struct termios mode;
    return tcgetattr(STDIN_FILENO, &mode) == 0 && (mode.c_lflag & ICANON);
}

static void ask_for_pastes(const line_reader *l, bool on) {
    if (l->pastes) fputs(on ? "\033[?2004h" : "\033[?2004l", stderr);
}

/* Ctrl-Z: the terminal is the shell's until the process goes on. */
static void suspend(line_reader *l) {
    ask_for_pastes(l, false);
    el_wset(l->el, EL_PREP_TERM, 0);
    signals_suspend();
}

/* Somebody else had the terminal and left it in another mode, of which libedit knows nothing: it is
 * told that it left the mode, too. False where the terminal is still another's. */
static bool take_terminal(line_reader *l) {
    el_wset(l->el, EL_PREP_TERM, 0);
    el_wset(l->el, EL_PREP_TERM, 1);
    if (is_cooked()) return false;
    ask_for_pastes(l, true);
    return true;
}

/* Between bytes: the process may have been stopped for a while, and the terminal may have another
 * size by now. */
static void look_at_terminal(line_reader *l) {
    struct winsize size;
    if (signals_suspend_asked()) suspend(l);
    bool resumed = signals_continued() || is_cooked();
    bool resized = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && !same_size(&size, &l->size);
    if (resized) {
        l->size = size;
        if (!resumed) draw_resized(l);
        el_resize(l->el);
    }
    if (resumed ? take_terminal(l) : resized) el_wset(l->el, EL_REFRESH);
}

/* Whether the next byte can be taken; false at the end, after a failure and an interruption. */
static bool fill(line_reader *l) {
    while (l->at == l->n) {
        struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
        int ready = poll(&in, 1, POLL_MS);
        if (*signals_stop()) {
            l->interrupted = true;
            errno = EINTR;
            return false;
        }
        if (l->el) look_at_terminal(l);
        if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
        ssize_t n = read(STDIN_FILENO, l->bytes, sizeof l->bytes);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n == 0) errno = 0;
        if (n <= 0) return false;
        l->at = 0;
        l->n = (size_t)n;
    }
    return true;
}

/* ---- lines as they are ----------------------------------------------------------------- */

static cca_status no_memory(cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "no memory for a line of standard input");
}

static cca_status check_line(line_reader *l, const text_buffer *line, cca_error *err) {
    size_t valid = cca_utf8_valid(line->bytes, line->size);
    if (valid == line->size) return CCA_OK;
    unsigned long long at = l->offset + valid, no = l->no + 1;
    return cca_fail(err, CCA_BAD_TEXT,
                    "standard input: invalid UTF-8 (byte 0x%02x) at byte offset %llu, line %llu",
                    (uint8_t)line->bytes[valid], at, no);
}

static cca_status read_plain(line_reader *l, text_buffer *out, line_event *event, cca_error *err) {
    bool whole = false;
    while (!whole && fill(l)) {
        const char *begin = l->bytes + l->at, *newline = memchr(begin, '\n', l->n - l->at);
        size_t size = newline ? (size_t)(newline - begin) : l->n - l->at;
        if (!text_append(out, begin, size)) return no_memory(err);
        whole = newline != NULL;
        l->at += size + whole;
    }
    if (l->interrupted) {
        l->interrupted = false;
        *event = LINE_INTERRUPT;
        return CCA_OK;
    }
    if (!whole && errno != 0) {
        return cca_fail(err, CCA_RUNTIME, "standard input: cannot read: %s", strerror(errno));
    }
    *event = whole || out->size > 0 ? LINE_TEXT : LINE_END;
    cca_status status = check_line(l, out, err);
    l->offset += out->size + 1;
    l->no++;
    return status;
}

/* ---- characters ------------------------------------------------------------------------ */

/* The character that size ≥ 1 bytes begin with; false, and U+FFFD, where there is none or it is
 * NUL, which would end a line. */
static bool take_character(wchar_t *out, size_t *length, const char *bytes, size_t size) {
    uint32_t code;
    bool taken = cca_utf8_next(&code, length, bytes, size) == CCA_UTF8_WHOLE && code != 0;
    *out = (wchar_t)(taken ? code : CCA_UTF8_REPLACEMENT);
    return taken;
}

static bool append_character(text_buffer *out, wchar_t w) {
    char bytes[4];
    return text_append(out, bytes, cca_utf8_put(bytes, (uint32_t)w));
}

static bool erases(wchar_t c) {
    return c == 0x7f || c == '\b';
}

/* An erasing key goes to libedit as often as what it erases has code points, rather than to a
 * function bound to it, since libedit's search knows the key by what it is bound to. */
static wchar_t erase_all(line_reader *l, EditLine *el, wchar_t key) {
    const LineInfoW *line = el_wline(el);
    size_t n = cluster_before(line->buffer, line->cursor);
    l->again = n > 1 ? n - 1 : 0;
    return key;
}

/* libedit's source of characters: 1, or 0 at the end, -1 after a failure or an interruption. */
static int next_character(EditLine *el, wchar_t *out) {
    line_reader *l = NULL;
    char bytes[4];
    size_t n = 0, length = 0;
    el_wget(el, EL_CLIENTDATA, &l);
    if (l->again > 0) {
        l->again--;
        *out = 0x7f;
        return 1;
    }
    for (;;) {
        if (!fill(l)) {
            const LineInfoW *line = el_wline(el);
            l->was_empty = line->lastchar == line->buffer;
            return errno == 0 ? 0 : -1;
        }
        bytes[n++] = l->bytes[l->at];
        uint32_t code;
        cca_utf8_kind kind = cca_utf8_next(&code, &length, bytes, n);
        if (kind == CCA_UTF8_INVALID) {
            /* What makes it invalid may begin the next character. */
            if (n == 1) l->at++;
            l->invalid = true;
            *out = CCA_UTF8_REPLACEMENT;
            return 1;
        }
        l->at++;
        if (kind == CCA_UTF8_WHOLE) {
            *out = erases((wchar_t)code) ? erase_all(l, el, (wchar_t)code) : (wchar_t)code;
            return 1;
        }
    }
}

/* ---- pastes ---------------------------------------------------------------------------- */

/* Up to the mark that ends it. */
static bool take_paste(line_reader *l, text_buffer *paste) {
    static const char end[] = "\033[201~";
    enum { END = sizeof end - 1 };
    while (fill(l)) {
        char c = l->bytes[l->at++];
        if (!text_append(paste, &c, 1)) return false;
        if (paste->size < END || memcmp(paste->bytes + paste->size - END, end, END) != 0) continue;
        paste->size -= END;
        return true;
    }
    return false;
}

/* As one string; terminals send a carriage return for each line break. */
static wchar_t *paste_characters(line_reader *l, const text_buffer *paste) {
    wchar_t *out = calloc(paste->size + 1, sizeof *out);
    size_t n = 0, length;
    for (size_t at = 0; out && at < paste->size; at += length) {
        const char *c = paste->bytes + at;
        if (!take_character(&out[n], &length, c, paste->size - at)) l->invalid = true;
        if (*c == '\r') out[n] = L'\n';
        n += *c != '\n' || at == 0 || c[-1] != '\r';
    }
    if (out) out[n] = L'\0';
    return out;
}

/* What the mark that begins a paste is bound to. */
static unsigned char insert_paste(EditLine *el, int key) {
    line_reader *l = NULL;
    text_buffer paste = {0};
    (void)key;
    el_wget(el, EL_CLIENTDATA, &l);
    wchar_t *text = take_paste(l, &paste) ? paste_characters(l, &paste) : NULL;
    bool done = text && (*text == L'\0' || el_winsertstr(el, text) == 0);
    free(text);
    text_free(&paste);
    return done ? CC_REFRESH : CC_ERROR;
}

/* ---- keys ------------------------------------------------------------------------------ */

/* Over what is shown as one character. */
static unsigned char move_left(EditLine *el, int key) {
    const LineInfoW *line = el_wline(el);
    size_t n = cluster_before(line->buffer, line->cursor);
    (void)key;
    el_cursor(el, -(int)n);
    return n > 0 ? CC_CURSOR : CC_ERROR;
}

static unsigned char move_right(EditLine *el, int key) {
    const LineInfoW *line = el_wline(el);
    size_t n = cluster_behind(line->buffer, line->cursor, line->lastchar);
    (void)key;
    el_cursor(el, (int)n);
    return n > 0 ? CC_CURSOR : CC_ERROR;
}

static unsigned char erase_behind(EditLine *el, int key) {
    const LineInfoW *line = el_wline(el);
    size_t n = cluster_behind(line->buffer, line->cursor, line->lastchar);
    (void)key;
    el_cursor(el, (int)n);
    el_wdeletestr(el, (int)n);
    return n > 0 ? CC_REFRESH : CC_ERROR;
}

/* Ctrl-D. */
static unsigned char erase_or_end(EditLine *el, int key) {
    const LineInfoW *line = el_wline(el);
    return line->lastchar == line->buffer ? CC_EOF : erase_behind(el, key);
}

static void bind_keys(EditLine *el) {
    static const struct {
        const wchar_t *name, *help;
        unsigned char (*function)(EditLine *, int);
        const wchar_t *keys[4];
    } all[] = {
        {L"cca-paste", L"Insert what the terminal pastes", insert_paste, {L"\033[200~"}},
        {L"cca-left", L"Left", move_left, {L"^B", L"\033[D", L"\033OD"}},
        {L"cca-right", L"Right", move_right, {L"^F", L"\033[C", L"\033OC"}},
        {L"cca-erase", L"Erase what is behind", erase_behind, {L"\033[3~"}},
        {L"cca-end", L"Erase what is behind, or end", erase_or_end, {L"^D"}},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        el_wset(el, EL_ADDFN, all[i].name, all[i].help, all[i].function);
        for (size_t k = 0; k < 4 && all[i].keys[k]; k++) {
            el_wset(el, EL_BIND, all[i].keys[k], all[i].name, NULL);
        }
    }
    el_wset(el, EL_BIND, L"^R", L"em-inc-search-prev", NULL);
}

/* ---- the history ----------------------------------------------------------------------- */

static bool write_history(const line_reader *l, int fd) {
    HistEventW event;
    FILE *file = fdopen(fd, "w");
    bool done = file && history_w(l->history, &event, H_SAVE_FP, file) >= 0;
    if (file ? fclose(file) != 0 : close(fd) != 0) done = false;
    return done;
}

/* Only the last ones, in a new file that takes the place of the old one. */
static void shorten_history(const line_reader *l) {
    cca_whole_file f;
    cca_status status = cca_whole_open(&f, l->path, NULL);
    f.owner_only = true;
    if (!status) status = cca_whole_begin(&f, 0, NULL);
    bool written = !status && write_history(l, dup(f.fd));
    if (written && !cca_whole_sync(&f, NULL)) (void)cca_whole_commit(&f, NULL);
    cca_whole_close(&f);
}

static void open_history(line_reader *l) {
    HistEventW event;
    char *folder;
    (void)folder_of(&folder, "XDG_STATE_HOME", ".local/state", "histories", NULL);
    l->history = history_winit();
    if (l->history) {
        history_w(l->history, &event, H_SETSIZE, MOST_REMEMBERED);
        history_w(l->history, &event, H_SETUNIQUE, 1);
        el_wset(l->el, EL_HIST, history_w, l->history);
    }
    if (l->history && folder && folder_make(folder) &&
        asprintf(&l->path, "%s/%s", folder, l->options->history) < 0) {
        l->path = NULL;
    }
    free(folder);
    if (l->path && history_w(l->history, &event, H_LOAD, l->path) > 2 * MOST_REMEMBERED) {
        shorten_history(l);
    }
}

/* The history in memory grows; the file gets what is new. */
void line_reader_remember(line_reader *l, const char *text, size_t size) {
    HistEventW event;
    wchar_t *line = l->history ? calloc(size + 1, sizeof *line) : NULL;
    size_t n = 0, length;
    if (!line) return;
    for (size_t at = 0; at < size; at += length) {
        (void)take_character(&line[n++], &length, text + at, size - at);
    }
    bool same = history_w(l->history, &event, H_FIRST) == 0 && wcscmp(event.str, line) == 0;
    bool added = !same && history_w(l->history, &event, H_ENTER, line) > 0;
    free(line);
    if (!added || !l->path) return;
    int fd = cca_open_again(l->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    FILE *file = fd >= 0 ? fdopen(fd, "a") : NULL;
    bool kept = file && fseek(file, 0, SEEK_END) == 0 &&
                history_w(l->history, &event, H_NSAVE_FP, (size_t)0, file) >= 0;
    if (file ? fclose(file) != 0 : fd < 0 || close(fd) != 0) kept = false;
    if (kept) return;
    term_note(l->term, "%s: cannot write; what is typed is not remembered", l->path);
    free(l->path);
    l->path = NULL;
}

/* ---- editing --------------------------------------------------------------------------- */

static char *prompt(EditLine *el) {
    line_reader *l = NULL;
    el_get(el, EL_CLIENTDATA, &l);
    return (char *)(l->goes_on ? "... " : l->prompt);
}

/* libedit shows and measures characters by the locale. */
static void want_utf8(void) {
    if (setlocale(LC_CTYPE, "") && strcmp(nl_langinfo(CODESET), "UTF-8") == 0) return;
    setlocale(LC_CTYPE, "C.UTF-8");
}

static bool open_editor(line_reader *l) {
    const char *type = NULL;
    want_utf8();
    l->el = el_init("cca", stdin, stderr, stderr);
    if (!l->el) return false;
    el_wset(l->el, EL_CLIENTDATA, l);
    el_wset(l->el, EL_EDITOR, L"emacs");
    el_wset(l->el, EL_GETCFN, next_character);
    el_set(l->el, EL_PROMPT_ESC, prompt, '\1');
    bind_keys(l->el);
    el_get(l->el, EL_TERMINAL, &type);
    l->pastes = type && strcmp(type, "dumb") != 0;
    (void)ioctl(STDERR_FILENO, TIOCGWINSZ, &l->size);
    open_history(l);
    return true;
}

cca_status line_reader_open(line_reader **out, const line_options *options, term *t,
                            cca_error *err) {
    line_reader *l = calloc(1, sizeof *l);
    bool edited = isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1;
    *out = l;
    if (l) {
        l->term = t;
        l->options = options;
        snprintf(l->prompt, MOST_PROMPT, t->color ? "\1\033[1;32m\1%s\1\033[0m\1 " : "%s ",
                 options->prompt);
    }
    if (l && (!edited || open_editor(l))) return CCA_OK;
    line_reader_close(l);
    *out = NULL;
    return cca_fail(err, CCA_NO_MEMORY, "no memory for editing lines");
}

void line_reader_close(line_reader *l) {
    if (!l) return;
    if (l->el) el_end(l->el);
    if (l->history) history_wend(l->history);
    free(l->path);
    free(l);
}

bool line_reader_is_edited(const line_reader *l) {
    return l->el != NULL;
}

static cca_status read_edited(line_reader *l, text_buffer *out, line_event *event, cca_error *err) {
    int n = 0;
    l->again = 0;
    signals_hold_suspend(true);
    ask_for_pastes(l, true);
    const wchar_t *line = el_wgets(l->el, &n);
    ask_for_pastes(l, false);
    signals_hold_suspend(false);
    if (l->interrupted) {
        fputs("^C\n", stderr);
        *event = l->was_empty ? LINE_INTERRUPT_0 : LINE_INTERRUPT;
        return CCA_OK;
    }
    if (!line || n <= 0) {
        fputc('\n', stderr);
        *event = LINE_END;
        return CCA_OK;
    }
    if (line[n - 1] == L'\n') n--;
    *event = LINE_TEXT;
    for (int i = 0; i < n; i++) {
        if (!append_character(out, line[i])) return no_memory(err);
    }
    if (!l->invalid) return CCA_OK;
    return cca_fail(err, CCA_BAD_TEXT,
                    "what was typed or pasted is no UTF-8 text; it was not sent");
}

cca_status line_reader_read(line_reader *l, text_buffer *out, bool goes_on, line_event *event,
                            cca_error *err) {
    l->goes_on = goes_on;
    l->interrupted = l->was_empty = l->invalid = false;
    return l->el ? read_edited(l, out, event, err) : read_plain(l, out, event, err);
}
