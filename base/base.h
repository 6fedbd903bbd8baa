/* What every module shares: status codes, error texts, checked sizes.
 *
 *     cca_error err;
 *     if (!ptr) return cca_fail(&err, CCA_NO_MEMORY, "%s: no memory for %zu bytes", path, bytes);
 *
 * Library code never prints, exits or aborts on input: a function that can fail
 * returns a cca_status and writes one line (no newline at its end) that names the
 * file, tensor, key or option into the caller's cca_error. */
#ifndef CCA_BASE_H
#define CCA_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The values are the program's exit codes. */
typedef enum cca_status {
    CCA_OK = 0,
    CCA_RUNTIME = 1,       /* anything that has no code of its own */
    CCA_USAGE = 2,         /* options that make no sense */
    CCA_BAD_MODEL = 3,     /* model or session file missing, corrupt, incompatible */
    CCA_NO_FIT = 4,        /* input too long or too short */
    CCA_NO_MEMORY = 5,     /* not enough memory, or over --mem-limit */
    CCA_BAD_TEXT = 6,      /* text that is not UTF-8 */
    CCA_BAD_OUTPUT = 7,    /* output could not be written */
    CCA_CHECK_FAILED = 8,  /* a check found a difference */
    CCA_INTERRUPTED = 130, /* stopped by the caller's flag */
} cca_status;

typedef struct cca_error {
    char text[1024];
    cca_status status; /* what the function returned, for those that return something else */
} cca_error;

/* Writes message and status into err (which may be NULL) and returns status. Control characters of
 * names and texts in the message are escaped, so that it may go to a terminal. */
cca_status cca_fail(cca_error *err, cca_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* *out = a * b, or a + b; false where that overflows (then *out is undefined).
 * Each product of dimensions that comes from a file or an option goes through here. */
static inline bool cca_mul(size_t *out, size_t a, size_t b) {
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool cca_add(size_t *out, size_t a, size_t b) {
    return !__builtin_add_overflow(a, b, out);
}

static inline int64_t cca_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t cca_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}

#endif
