#include "cli/output.h"

#include "base/utf8.h"
#include "cli/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void fail_output(output *out, cca_status status, const char *why) {
    if (out->status) return;
    out->status = status;
    cca_fail(&out->error, status, "%s: %s", out->name, why);
}

static void write_failed(output *out) {
    char why[128];
    snprintf(why, sizeof why, "cannot write: %s", strerror(errno));
    fail_output(out, errno == EPIPE ? CLI_PIPE_CLOSED : CCA_BAD_OUTPUT, why);
}

static void open_file(output *out, const char *path) {
    cca_status status = cca_whole_open(&out->file, path, NULL);
    if (!status) status = cca_whole_begin(&out->file, 0, NULL);
    if (status == CCA_NO_MEMORY) {
        fail_output(out, status, "no memory");
    } else if (status) {
        write_failed(out);
    }
    out->fd = out->file.fd;
    if (status) cca_whole_close(&out->file);
}

/* A device or a pipe: the user may end the wait for its reader. */
static void open_other(output *out, const char *path) {
    do {
        out->fd = open(path, O_WRONLY | O_CLOEXEC);
    } while (out->fd < 0 && errno == EINTR && !*signals_stop());
    if (out->fd < 0 && errno == EINTR) {
        fail_output(out, CCA_INTERRUPTED, "interrupted while waiting for its reader");
    } else if (out->fd < 0) {
        write_failed(out);
    }
}

cca_status output_open(output *out, const char *path, cca_error *err) {
    struct stat info;
    memset(out, 0, sizeof *out);
    out->name = path && strcmp(path, "-") != 0 ? path : "standard output";
    out->fd = STDOUT_FILENO;
    if (out->name != path) return CCA_OK;
    if (stat(path, &info) != 0 || S_ISREG(info.st_mode)) {
        open_file(out, path);
    } else {
        open_other(out, path);
    }
    if (out->status && err) *err = out->error;
    return out->status;
}

/* Whether a failed write is worth another try. */
static bool try_again(const output *out) {
    if (errno == EINTR) return true;
    if (errno != EAGAIN) return false;
    poll(&(struct pollfd){.fd = out->fd, .events = POLLOUT}, 1, -1); /* a non-blocking pipe */
    return true;
}

static void send_buffer(output *out) {
    size_t done = 0;
    while (done < out->used && !out->status) {
        ssize_t n = write(out->fd, out->buffer + done, out->used - done);
        if (n > 0) {
            done += (size_t)n;
        } else if (n == 0 || !try_again(out)) {
            write_failed(out);
        }
    }
    out->used = 0;
}

void output_write(output *out, const void *bytes, size_t size) {
    const char *from = bytes;
    if (size > 0) out->last = from[size - 1];
    while (size > 0 && !out->status) {
        size_t room = sizeof out->buffer - out->used;
        size_t n = size < room ? size : room;
        memcpy(out->buffer + out->used, from, n);
        out->used += n;
        from += n;
        size -= n;
        if (out->used == sizeof out->buffer) send_buffer(out);
    }
}

static void write_printable(output *out, const char *text, size_t size, bool lines) {
    char *shown = malloc(4 * size + 1);
    if (shown) {
        output_write(out, shown, cca_utf8_printable(shown, text, size, lines));
    } else {
        fail_output(out, CCA_NO_MEMORY, "no memory");
    }
    free(shown);
}

void output_printf(output *out, const char *format, ...) {
    char *text;
    va_list args;
    va_start(args, format);
    int size = vasprintf(&text, format, args);
    va_end(args);
    if (size < 0) {
        fail_output(out, CCA_NO_MEMORY, "no memory");
        return;
    }
    write_printable(out, text, (size_t)size, true);
    free(text);
}

void output_text(output *out, const char *text, size_t size) {
    write_printable(out, text, size, false);
}

/* Jansson escapes the control characters below 0x20; the others stand in strings, too. */
static void write_json(output *out, const char *text) {
    const char *from = text;
    for (; *text; text++) {
        bool del = *text == 0x7f, c1 = *text == '\xc2' && (uint8_t)text[1] < 0xa0;
        if (!del && !c1) continue;
        char escape[8];
        int n = snprintf(escape, sizeof escape, "\\u%04x", del ? 0x7f : (uint8_t)text[1]);
        output_write(out, from, (size_t)(text - from));
        output_write(out, escape, (size_t)n);
        text += c1;
        from = text + 1;
    }
    output_write(out, from, (size_t)(text - from));
    output_write(out, "\n", 1);
}

void output_json(output *out, json_t *value) {
    char *text = value ? json_dumps(value, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(value);
    if (!text) {
        fail_output(out, CCA_NO_MEMORY, "no memory for the record");
        return;
    }
    write_json(out, text);
    free(text);
}

static bool is_same_file(int a, int b) {
    struct stat x, y;
    if (isatty(a) == 1 && isatty(b) == 1) return true;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

void output_end_line(output *out) {
    bool open = out->last != '\0' && out->last != '\n';
    if (!open || !is_same_file(out->fd, STDERR_FILENO)) return;
    send_buffer(out);
    fputc('\n', stderr);
    out->last = '\n';
}

cca_status output_flush(output *out, cca_error *err) {
    send_buffer(out);
    if (out->status && err) *err = out->error;
    return out->status;
}

cca_status output_close(output *out, bool keep, cca_error *err) {
    cca_status status = keep ? output_flush(out, err) : CCA_OK;
    bool is_other = !out->file.path && out->fd >= 0 && out->fd != STDOUT_FILENO;
    /* The data reaches the disk before the name does. */
    if (keep && out->file.path && !status &&
        (cca_whole_sync(&out->file, NULL) || cca_whole_commit(&out->file, NULL))) {
        write_failed(out);
    }
    cca_whole_close(&out->file);
    if (is_other && close(out->fd) != 0) write_failed(out);
    if (keep) status = output_flush(out, err);
    out->fd = -1;
    return status;
}

void output_put(json_t **object, const char *key, json_t *value) {
    if (json_object_set_new(*object, key, value) == 0) return;
    json_decref(*object);
    *object = NULL;
}

void output_add(json_t **array, json_t *value) {
    if (json_array_append_new(*array, value) == 0) return;
    json_decref(*array);
    *array = NULL;
}

json_t *output_string(const char *bytes, size_t size) {
    text_buffer clean = {0};
    json_t *value = NULL;
    if (utf8_append_clean(&clean, bytes, size)) {
        value = json_stringn(clean.bytes ? clean.bytes : "", clean.size);
    }
    text_free(&clean);
    return value;
}

json_t *output_real(bool known, double value) {
    return known && isfinite(value) ? json_real(value) : json_null();
}

json_t *output_size(int64_t size) {
    return size > 0 ? json_integer(size) : json_null();
}

/* ---- the text that a model writes ---- */

void answer_begin(answer *a, output *out, const answer_options *options) {
    *a = (answer){.out = out, .options = *options};
}

/* Writes the first size bytes of what is held. */
static cca_status release(answer *a, size_t size, cca_error *err) {
    if (size == 0) return CCA_OK;
    if (!text_append(&a->text, a->held.bytes, size)) {
        return cca_fail(err, CCA_NO_MEMORY, "no memory for the answer");
    }
    if (a->options.format == ANSWER_TEXT) output_write(a->out, a->held.bytes, size);
    if (a->options.format == ANSWER_JSONL) {
        output_json(a->out, json_pack("{s:s, s:o}", "event", "text", "text",
                                      output_string(a->held.bytes, size)));
    }
    text_drop(&a->held, size);
    return output_flush(a->out, err);
}

/* Where the first stop text that is complete begins; held.size where there is none. */
static size_t find_stop(const answer *a) {
    size_t at = a->held.size;
    for (size_t i = 0; i < a->options.n_stops; i++) {
        const text_buffer *stop = &a->options.stops[i];
        const char *found = memmem(a->held.bytes, a->held.size, stop->bytes, stop->size);
        if (found && (size_t)(found - a->held.bytes) < at) at = (size_t)(found - a->held.bytes);
    }
    return at;
}

/* Bytes at the end of what is held that may become a stop text. */
static size_t may_stop(const answer *a) {
    size_t most = 0;
    for (size_t i = 0; i < a->options.n_stops; i++) {
        const text_buffer *stop = &a->options.stops[i];
        size_t n = stop->size - 1 < a->held.size ? stop->size - 1 : a->held.size;
        for (; n > most; n--) {
            if (memcmp(a->held.bytes + a->held.size - n, stop->bytes, n) == 0) most = n;
        }
    }
    return most;
}

cca_status answer_add(answer *a, const char *bytes, size_t size, cca_error *err) {
    if (size == 0 || a->stopped) return CCA_OK;
    size_t skip = a->options.strip_space && !a->begun && bytes[0] == ' ';
    if (!a->begun) a->skipped = skip;
    a->begun = true;
    if (!text_append(&a->held, bytes + skip, size - skip)) {
        return cca_fail(err, CCA_NO_MEMORY, "no memory for the answer");
    }
    if (a->held.size == 0) return CCA_OK;
    size_t stop = find_stop(a);
    if (stop < a->held.size) {
        a->stopped = true;
        cca_status status = release(a, stop, err);
        a->held.size = 0;
        return status;
    }
    size_t ready = a->held.size - may_stop(a);
    return release(a, ready - cca_utf8_unfinished(a->held.bytes, ready), err);
}

cca_status answer_end(answer *a, cca_error *err) {
    return release(a, a->held.size, err);
}

void answer_free(answer *a) {
    text_free(&a->held);
    text_free(&a->text);
}
