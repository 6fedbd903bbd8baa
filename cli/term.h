/* What goes to standard error: notes, warnings, progress, the last line. Control characters
 * only on a terminal.
 *
 *     term t;
 *     term_open(&t, &options);
 *     term_warn(&t, "cut %d tokens", n);
 *     term_start(&t, "prefill", TERM_TOKENS, 131072);
 *     term_progress(&t, 4096, cache_bytes);       // as often as you like
 *     term_done(&t);
 *     term_close(&t); */
#ifndef CCA_CLI_TERM_H
#define CCA_CLI_TERM_H

#include "base/base.h"
#include "cli/args.h"

#include <jansson.h>

typedef struct term_options {
    const char *progress; /* "auto", "bar", "line", "none" */
    const char *color;    /* "auto", "on", "off" */
    bool quiet, verbose;
} term_options;

/* Their table. */
extern const arg_option term_args[];

typedef enum term_style { TERM_NONE, TERM_LINE, TERM_BAR } term_style;
typedef enum term_unit { TERM_TOKENS, TERM_BYTES } term_unit;

typedef struct term {
    term_style style;
    bool color, quiet, verbose;
    int drawn;        /* columns of the bar on the terminal's last line; 0: there is none */
    json_t *warnings; /* array of strings, for the record of --json */
    const char *what; /* the work under way; NULL: none */
    term_unit unit;
    int64_t done, total, skipped;
    uint64_t cache_bytes;
    double started, shown; /* seconds */
} term;

void term_open(term *t, const term_options *options);
void term_close(term *t);

/* Said unless --quiet; said with --verbose. */
void term_note(term *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void term_detail(term *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Said unless --quiet, and kept for the record. */
void term_warn(term *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Said with --quiet, too: what was asked for, and what went wrong where the program goes on. */
void term_say(term *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void term_error(term *t, const char *text);

/* Progress of work on total tokens or bytes; cache_bytes is shown with tokens. Also prints the
 * status line that SIGUSR1 asks for. */
void term_start(term *t, const char *what, term_unit unit, int64_t total);
/* The first n of them cost no time. */
void term_skip(term *t, int64_t n);
void term_progress(term *t, int64_t done, uint64_t cache_bytes);
/* Removes the bar. */
void term_done(term *t);

/* The most memory that the process had so far, bytes. */
uint64_t term_peak_memory(void);

/* "1.25 GB" (powers of ten) in a buffer of the caller. */
enum { TERM_SIZE_TEXT = 32 };
const char *term_size(char out[TERM_SIZE_TEXT], uint64_t bytes);

/* "s" behind what there are n of, unless that is 1. */
const char *term_plural(int64_t n);

/* Of n things in so many seconds; 0 where no time has passed. */
double term_per_second(int64_t n, double seconds);

#endif
