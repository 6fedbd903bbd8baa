#include "cli/term.h"

#include "base/clock.h"
#include "base/utf8.h"
#include "cli/signals.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LINE_TEXT = 256 };
static const double bar_seconds = 0.1, line_seconds = 10;

const arg_option term_args[] = {
    {"progress", .kind = ARG_CHOICE, .value = "HOW", .at = offsetof(term_options, progress),
     .initial = "auto", .choices = "auto|bar|line|none",
     .help = "one redrawn line, or a plain line every 10 s (off a terminal always plain)"},
    {"color", .kind = ARG_CHOICE, .value = "WHEN", .at = offsetof(term_options, color),
     .initial = "auto", .choices = "auto|on|off", .help = "colour of warnings; NO_COLOR is heeded"},
    {"quiet", "q", .kind = ARG_FLAG, .at = offsetof(term_options, quiet), .help = "errors only"},
    {"verbose", "v", .kind = ARG_FLAG, .at = offsetof(term_options, verbose),
     .help = "model, device, settings and memory, too"},
    {0},
};

uint64_t term_peak_memory(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

double term_per_second(int64_t n, double seconds) {
    return seconds > 0 ? (double)n / seconds : 0;
}

const char *term_plural(int64_t n) {
    return n == 1 ? "" : "s";
}

const char *term_size(char out[TERM_SIZE_TEXT], uint64_t bytes) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 999.5 && unit < 4; unit++) value /= 1000;
    int digits = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    snprintf(out, TERM_SIZE_TEXT, "%.*f %s", digits, value, units[unit]);
    return out;
}

void term_open(term *t, const term_options *options) {
    bool terminal = isatty(STDERR_FILENO) == 1;
    const char *no_color = getenv("NO_COLOR");
    bool may_color = terminal && !(no_color && *no_color);
    *t = (term){.quiet = options->quiet, .verbose = options->verbose};
    t->color = strcmp(options->color, "auto") == 0 ? may_color : options->color[1] == 'n';
    if (options->quiet || strcmp(options->progress, "none") == 0) {
        t->style = TERM_NONE;
    } else if (!terminal || strcmp(options->progress, "line") == 0) {
        t->style = TERM_LINE;
    } else {
        t->style = TERM_BAR;
    }
    t->warnings = json_array();
}

void term_close(term *t) {
    term_done(t);
    json_decref(t->warnings);
    t->warnings = NULL;
}

static int terminal_width(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* In a terminal that has become narrower the bar takes several rows by now. */
static void erase_bar(term *t) {
    int rows = t->drawn > 0 ? (t->drawn - 1) / terminal_width() : 0;
    if (rows > 0) fprintf(stderr, "\r\033[%dA\033[J", rows);
    if (t->drawn > 0 && rows == 0) fputs("\r\033[K", stderr);
    t->drawn = 0;
}

/* What may go to a terminal of a text, to be freed; NULL without memory. */
static char *printable(const char *format, va_list args) {
    char *text, *shown = NULL;
    int size = vasprintf(&text, format, args);
    if (size < 0) return NULL;
    shown = malloc(4 * (size_t)size + 1);
    if (shown) cca_utf8_printable(shown, text, (size_t)size, true);
    free(text);
    return shown;
}

static void print_line(term *t, const char *format, va_list args) {
    char *text = printable(format, args);
    erase_bar(t);
    if (text) fprintf(stderr, "%s\n", text);
    free(text);
}

void term_note(term *t, const char *format, ...) {
    if (t->quiet) return;
    va_list args;
    va_start(args, format);
    print_line(t, format, args);
    va_end(args);
}

void term_detail(term *t, const char *format, ...) {
    if (t->quiet || !t->verbose) return;
    va_list args;
    va_start(args, format);
    print_line(t, format, args);
    va_end(args);
}

void term_warn(term *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = printable(format, args);
    va_end(args);
    if (text && t->warnings) json_array_append_new(t->warnings, json_string(text));
    if (text && !t->quiet) {
        erase_bar(t);
        fprintf(stderr, "%swarning:%s %s\n", t->color ? "\033[33m" : "", t->color ? "\033[0m" : "",
                text);
    }
    free(text);
}

void term_say(term *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_line(t, format, args);
    va_end(args);
}

void term_error(term *t, const char *text) {
    erase_bar(t);
    fprintf(stderr, "%serror:%s %s\n", t->color ? "\033[31m" : "", t->color ? "\033[0m" : "", text);
}

static void describe(const term *t, char out[LINE_TEXT], double now) {
    char done[TERM_SIZE_TEXT], total[TERM_SIZE_TEXT], speed_text[TERM_SIZE_TEXT];
    double elapsed = now - t->started;
    double speed = term_per_second(t->done - t->skipped, elapsed);
    long long left = speed > 0 ? (long long)((double)(t->total - t->done) / speed + 0.5) : 0;
    int percent = t->total > 0 ? (int)(100.0 * (double)t->done / (double)t->total) : 100;
    if (t->unit == TERM_BYTES) {
        snprintf(out, LINE_TEXT, "%s %s of %s, %d %%, %s/s, %lld:%02lld left", t->what,
                 term_size(done, (uint64_t)t->done), term_size(total, (uint64_t)t->total), percent,
                 term_size(speed_text, (uint64_t)speed), left / 60, left % 60);
    } else {
        snprintf(out, LINE_TEXT,
                 "%s %lld/%lld tokens, %d %%, %.4g tok/s, %lld:%02lld left, cache %s", t->what,
                 (long long)t->done, (long long)t->total, percent, speed, left / 60, left % 60,
                 term_size(done, t->cache_bytes));
    }
}

/* The bar is one column shorter than the terminal: a full line would wrap. */
static void show(term *t, double now) {
    char text[LINE_TEXT];
    describe(t, text, now);
    if (t->style == TERM_BAR) {
        int width = terminal_width();
        if (t->drawn >= width) erase_bar(t);
        t->drawn = fprintf(stderr, "\r%.*s\033[K", width - 1, text) - 4; /* what moves nothing */
    } else {
        fprintf(stderr, "%s\n", text);
    }
    t->shown = now;
}

void term_start(term *t, const char *what, term_unit unit, int64_t total) {
    t->what = what;
    t->unit = unit;
    t->total = total;
    t->done = t->skipped = 0;
    t->cache_bytes = 0;
    t->started = t->shown = cca_seconds();
}

void term_skip(term *t, int64_t n) {
    t->done = t->skipped = n;
}

void term_progress(term *t, int64_t done, uint64_t cache_bytes) {
    char text[LINE_TEXT];
    double now = cca_seconds();
    t->done = done;
    t->cache_bytes = cache_bytes;
    if (signals_status_asked()) {
        erase_bar(t);
        describe(t, text, now);
        fprintf(stderr, "%s\n", text);
    }
    if (t->style == TERM_NONE) return;
    if (now - t->shown >= (t->style == TERM_BAR ? bar_seconds : line_seconds)) show(t, now);
}

void term_done(term *t) {
    erase_bar(t);
    t->what = NULL;
}
