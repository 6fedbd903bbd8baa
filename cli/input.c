#include "cli/input.h"

#include "base/file_kind.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "cli/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { READ_SIZE = 1 << 16 };

const arg_option input_args[] = {
    {"prompt", "p", .kind = ARG_LIST, .value = "TEXT", .at = offsetof(input_options, pieces),
     .tag = 'p', .help = "text; -p and -f may be repeated and are joined in order"},
    {"file", "f", .kind = ARG_LIST, .value = "FILE", .at = offsetof(input_options, pieces),
     .tag = 'f', .help = "text file, perhaps gzip; - is standard input"},
    {"escape", "e", .kind = ARG_FLAG, .at = offsetof(input_options, escape),
     .help = "resolve \\n \\t \\r \\0 \\\\ \\\" \\' \\xHH in -p and --stop texts"},
    {"invalid-utf8", .kind = ARG_CHOICE, .value = "HOW",
     .at = offsetof(input_options, invalid_utf8), .initial = "error",
     .choices = "error|replace|bytes",
     .help = "bytes that are no UTF-8: refuse, U+FFFD, or their byte tokens"},
    {"special", .kind = ARG_FLAG, .at = offsetof(input_options, special),
     .help = "control tokens written out in the text become those tokens"},
    {0},
};

static cca_status no_memory(const char *name, cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for the text", name);
}

/* ---- files ---- */

/* The same of a text that is being read. */
static cca_status no_room(const text_buffer *read, const char *name, cca_error *err) {
    return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for the text behind its first %zu bytes",
                    name, read->size);
}

static cca_status interrupted(const char *name, cca_error *err) {
    return cca_fail(err, CCA_INTERRUPTED, "%s: interrupted while reading", name);
}

/* -1 with EINTR where the user ends the wait for somebody who writes a pipe. */
static int open_text(const char *path) {
    int fd;
    do {
        fd = open(path, O_RDONLY | O_CLOEXEC);
    } while (fd < 0 && errno == EINTR && !*signals_stop());
    return fd;
}

static cca_status read_all(text_buffer *out, int fd, const char *name, cca_error *err) {
    struct stat info;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0 &&
        !text_reserve(out, (size_t)info.st_size + 1)) {
        return no_room(out, name, err);
    }
    for (;;) {
        if (out->capacity - out->size == 0 && !text_reserve(out, READ_SIZE)) {
            return no_room(out, name, err);
        }
        ssize_t n = read(fd, out->bytes + out->size, out->capacity - out->size);
        if (n == 0) return CCA_OK;
        if (n > 0) {
            out->size += (size_t)n;
        } else if (errno != EINTR) {
            return cca_fail(err, CCA_RUNTIME, "%s: cannot read: %s", name, strerror(errno));
        } else if (*signals_stop()) {
            return interrupted(name, err);
        }
    }
}

static cca_status bad_gzip(const z_stream *z, size_t size, const char *name, const char *what,
                           cca_error *err) {
    return cca_fail(err, CCA_RUNTIME, "%s: %s gzip data at byte %zu of %zu", name, what,
                    size - z->avail_in, size);
}

/* One member; z holds what is left of the compressed bytes. */
static cca_status inflate_member(text_buffer *out, z_stream *z, size_t size, const char *name,
                                 cca_error *err) {
    int result = Z_OK;
    while (result != Z_STREAM_END) {
        if (out->capacity - out->size < READ_SIZE && !text_reserve(out, READ_SIZE)) {
            return no_room(out, name, err);
        }
        size_t room = out->capacity - out->size;
        uInt step = room < UINT32_MAX ? (uInt)room : UINT32_MAX;
        z->next_out = (Bytef *)out->bytes + out->size;
        z->avail_out = step;
        result = inflate(z, Z_NO_FLUSH);
        out->size += step - z->avail_out;
        if (result == Z_BUF_ERROR && z->avail_in == 0) {
            return bad_gzip(z, size, name, "truncated", err);
        }
        if (result == Z_MEM_ERROR) return no_memory(name, err);
        if (result != Z_OK && result != Z_STREAM_END) {
            return bad_gzip(z, size, name, "corrupt", err);
        }
    }
    return CCA_OK;
}

/* All members; zeros may pad the last one, as tape archives do. */
static cca_status inflate_all(text_buffer *out, const text_buffer *gzip, const char *name,
                              cca_error *err) {
    z_stream z = {.next_in = (Bytef *)gzip->bytes, .avail_in = (uInt)gzip->size};
    if (gzip->size > UINT32_MAX) {
        return cca_fail(err, CCA_RUNTIME, "%s: more than 4 GiB of gzip data", name);
    }
    if (inflateInit2(&z, 15 + 16) != Z_OK) return no_memory(name, err);
    cca_status status = CCA_OK;
    while (!status && z.avail_in > 0) {
        status = inflate_member(out, &z, gzip->size, name, err);
        while (z.avail_in > 0 && *z.next_in == 0) {
            z.next_in++;
            z.avail_in--;
        }
        if (!status && z.avail_in > 0 && inflateReset(&z) != Z_OK) status = no_memory(name, err);
    }
    inflateEnd(&z);
    return status;
}

static bool is_gzip(const char *bytes, size_t size) {
    return size >= 2 && (uint8_t)bytes[0] == 0x1f && (uint8_t)bytes[1] == 0x8b;
}

static const char *name_of(const char *path) {
    return strcmp(path, "-") == 0 ? "standard input" : path;
}

static cca_status read_bytes(text_buffer *out, const char *path, cca_error *err) {
    bool is_stdin = strcmp(path, "-") == 0;
    const char *name = name_of(path);
    int fd = is_stdin ? STDIN_FILENO : open_text(path);
    if (fd < 0 && errno == EINTR) return interrupted(name, err);
    if (fd < 0) return cca_fail(err, CCA_RUNTIME, "%s: cannot open: %s", name, strerror(errno));
    size_t begin = out->size;
    cca_status status = read_all(out, fd, name, err);
    if (!is_stdin) close(fd);
    if (status || !is_gzip(out->bytes + begin, out->size - begin)) return status;

    text_buffer gzip = {0};
    if (!text_append(&gzip, out->bytes + begin, out->size - begin)) return no_memory(name, err);
    out->size = begin;
    status = inflate_all(out, &gzip, name, err);
    text_free(&gzip);
    return status;
}

/* Refuses what is no text, and warns of what is another one than people mean. */
static cca_status check_kind(const char *bytes, size_t size, const char *name, term *t,
                             cca_error *err) {
    const cca_file_kind *kind = cca_file_no_text(bytes, size);
    if (kind && !kind->readable) {
        return cca_fail(err, CCA_BAD_TEXT, "%s: is %s; %s", name, kind->name, kind->advice);
    }
    if (kind && t) term_warn(t, "%s: is %s; %s", name, kind->name, kind->advice);
    return CCA_OK;
}

cca_status input_read_file(text_buffer *out, const char *path, cca_error *err) {
    size_t begin = out->size;
    cca_status status = read_bytes(out, path, err);
    if (status) return status;
    return check_kind(out->bytes + begin, out->size - begin, name_of(path), NULL, err);
}

/* ---- UTF-8 ---- */

static cca_status invalid_utf8(const input_text *text, size_t at, cca_error *err) {
    size_t source = 0;
    while (source + 1 < text->n_sources && text->sources[source + 1].begin <= at) source++;
    size_t begin = text->sources[source].begin;
    size_t line = 1;
    for (size_t i = begin; i < at; i++) line += text->text.bytes[i] == '\n';
    return cca_fail(err, CCA_BAD_TEXT,
                    "%s: invalid UTF-8 (byte 0x%02x) at byte offset %zu, line %zu; "
                    "iconv -f ENCODING -t UTF-8 makes UTF-8 of another encoding, --invalid-utf8 "
                    "replace or bytes reads it as it is",
                    text->sources[source].name, (uint8_t)text->text.bytes[at], at - begin, line);
}

static bool push_bad(input_text *text, size_t at) {
    if (text->n_bad == text->bad_capacity) {
        size_t capacity = text->bad_capacity ? 2 * text->bad_capacity : 64;
        size_t *bad = realloc(text->bad, capacity * sizeof *bad);
        if (!bad) return false;
        text->bad = bad;
        text->bad_capacity = capacity;
    }
    text->bad[text->n_bad++] = at;
    return true;
}

cca_status input_note_bad(input_text *text, cca_error *err) {
    const text_buffer *t = &text->text;
    for (size_t at = cca_utf8_valid(t->bytes, t->size); at < t->size;) {
        size_t length;
        cca_utf8_next(NULL, &length, t->bytes + at, t->size - at);
        for (size_t end = at + length; at < end; at++) {
            if (!push_bad(text, at)) return no_memory("input", err);
        }
        at += cca_utf8_valid(t->bytes + at, t->size - at);
    }
    return CCA_OK;
}

static cca_status check_utf8(input_text *text, const char *how, cca_error *err) {
    size_t valid = cca_utf8_valid(text->text.bytes, text->text.size);
    if (valid == text->text.size) return CCA_OK;
    if (strcmp(how, "error") == 0) return invalid_utf8(text, valid, err);
    if (strcmp(how, "bytes") == 0) return input_note_bad(text, err);
    text_buffer clean = {0};
    if (!utf8_append_clean(&clean, text->text.bytes, text->text.size)) {
        text_free(&clean);
        return no_memory("input", err);
    }
    text_free(&text->text);
    text->text = clean;
    return CCA_OK;
}

/* ---- all pieces ---- */

static cca_status read_text(text_buffer *out, const char *text, bool escape, term *t,
                            cca_error *err) {
    struct stat info;
    if (t && stat(text, &info) == 0 && S_ISREG(info.st_mode)) {
        term_warn(t, "-p takes the text itself, and \"%s\" is the name of a file, which -f reads",
                  text);
    }
    bool done = escape ? text_append_unescaped(out, text, strlen(text))
                       : text_append(out, text, strlen(text));
    return done ? CCA_OK : no_memory("--prompt", err);
}

static cca_status read_piece(input_text *out, const arg_item *piece, const input_options *options,
                             term *t, cca_error *err) {
    bool is_file = piece->tag == 'f', is_stdin = is_file && strcmp(piece->text, "-") == 0;
    const char *name = is_file ? name_of(piece->text) : "--prompt";
    for (size_t i = 0; is_stdin && i < out->n_sources; i++) {
        if (out->sources[i].name == name) {
            return cca_fail(err, CCA_USAGE, "standard input can be read only once");
        }
    }
    size_t begin = out->text.size;
    out->sources[out->n_sources++] = (input_source){name, begin};
    if (!is_file) return read_text(&out->text, piece->text, options->escape, t, err);
    cca_status status = read_bytes(&out->text, piece->text, err);
    if (status || strcmp(options->invalid_utf8, "error") != 0) return status;
    return check_kind(out->text.bytes + begin, out->text.size - begin, name, t, err);
}

cca_status input_read(input_text *out, const input_options *options, term *t, cca_error *err) {
    const arg_item from_stdin = {'f', "-"};
    const arg_item *pieces = options->pieces.items;
    size_t n = options->pieces.n;
    *out = (input_text){0};
    if (n == 0) {
        if (isatty(STDIN_FILENO)) {
            return cca_fail(err, CCA_USAGE, "no text: give -p TEXT, -f FILE or standard input");
        }
        pieces = &from_stdin;
        n = 1;
    }
    out->sources = calloc(n, sizeof *out->sources);
    if (!out->sources) return no_memory("input", err);
    cca_status status = CCA_OK;
    for (size_t i = 0; i < n && !status; i++) {
        status = read_piece(out, &pieces[i], options, t, err);
    }
    return status ? status : check_utf8(out, options->invalid_utf8, err);
}

cca_status input_read_piece(input_text *out, const input_options *options, const arg_item *piece,
                            term *t, cca_error *err) {
    arg_item item = *piece;
    input_options one = *options;
    one.pieces = (arg_list){&item, 1, 1};
    return input_read(out, &one, t, err);
}

void input_free(input_text *text) {
    text_free(&text->text);
    free(text->sources);
    free(text->bad);
    *text = (input_text){0};
}

/* ---- tokens ---- */

/* A stretch without bad bytes; the encoder counts offsets from its start. */
static cca_status encode_stretch(cca_tokens *out, const cca_tokenizer *tok, const input_text *text,
                                 size_t begin, size_t end, unsigned flags, cca_error *err) {
    if (begin > 0) flags &= ~(unsigned)(CCA_ENCODE_START | CCA_ENCODE_SPACE);
    if (begin == end && !(flags & CCA_ENCODE_SPACE)) return CCA_OK;
    size_t n = out->n;
    cca_status status =
        cca_tokenizer_encode(out, tok, text->text.bytes + begin, end - begin, flags, err);
    for (; n < out->n; n++) out->offsets[n] += begin;
    return status;
}

static cca_status encode_bad_byte(cca_tokens *out, const cca_tokenizer *tok, const input_text *text,
                                  size_t at, cca_error *err) {
    uint8_t byte = (uint8_t)text->text.bytes[at];
    int32_t id = cca_tokenizer_byte_token(tok, byte);
    if (id < 0) {
        return cca_fail(err, CCA_BAD_TEXT,
                        "--invalid-utf8 bytes: this tokenizer has no token for byte 0x%02x", byte);
    }
    return cca_tokens_push(out, id, at) ? CCA_OK : no_memory("tokens", err);
}

cca_status input_bos(cca_tokens *out, const cca_tokenizer *tok, cca_error *err) {
    const cca_tokenizer_facts *facts = cca_tokenizer_info(tok);
    bool wanted = facts->add_bos && facts->bos >= 0;
    return !wanted || cca_tokens_push(out, facts->bos, 0) ? CCA_OK : no_memory("tokens", err);
}

cca_status input_encode(cca_tokens *out, const cca_tokenizer *tok, const input_text *text,
                        unsigned flags, cca_error *err) {
    size_t begin = 0;
    cca_status status = CCA_OK;
    for (size_t i = 0; i < text->n_bad && !status; i++) {
        status = encode_stretch(out, tok, text, begin, text->bad[i], flags, err);
        if (!status) status = encode_bad_byte(out, tok, text, text->bad[i], err);
        begin = text->bad[i] + 1;
    }
    return status ? status : encode_stretch(out, tok, text, begin, text->text.size, flags, err);
}

cca_status input_encode_whole(cca_tokens *out, const cca_tokenizer *tok, const input_text *text,
                              bool special, cca_error *err) {
    unsigned flags = CCA_ENCODE_START | (special ? CCA_ENCODE_SPECIAL : 0);
    cca_status status = input_bos(out, tok, err);
    size_t bos = out->n;
    if (!status) status = input_encode(out, tok, text, flags, err);
    if (status) return status;
    out->n -= bos;
    memmove(out->ids, out->ids + bos, out->n * sizeof *out->ids);
    memmove(out->offsets, out->offsets + bos, out->n * sizeof *out->offsets);
    return CCA_OK;
}

/* ---- ids ---- */

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

cca_status input_parse_ids(cca_tokens *out, const text_buffer *text, const char *name,
                           int64_t vocab_size, cca_error *err) {
    for (size_t at = 0; at < text->size;) {
        if (is_space(text->bytes[at])) {
            at++;
            continue;
        }
        size_t begin = at;
        int64_t id = 0;
        for (; at < text->size && !is_space(text->bytes[at]); at++) {
            unsigned digit = (unsigned)(text->bytes[at] - '0');
            if (digit > 9 || id > INT32_MAX) {
                return cca_fail(err, CCA_USAGE, "%s: no token id at byte offset %zu", name, begin);
            }
            id = 10 * id + digit;
        }
        if (id >= vocab_size) {
            return cca_fail(err, CCA_USAGE,
                            "%s: token id %lld at byte offset %zu is outside the vocabulary of "
                            "%lld",
                            name, (long long)id, begin, (long long)vocab_size);
        }
        if (!cca_tokens_push(out, (int32_t)id, out->n)) return no_memory(name, err);
    }
    return CCA_OK;
}

uint64_t input_hash_tokenizer(const cca_tokenizer *tok) {
    uint64_t hash = cca_hash("", 0);
    int32_t n = cca_tokenizer_info(tok)->vocab_size;
    for (int32_t id = 0; id < n; id++) {
        const char *piece = cca_tokenizer_piece(tok, id);
        hash = cca_hash_more(hash, piece, strlen(piece) + 1);
    }
    return hash;
}
