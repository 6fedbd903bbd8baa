/* The text that a command works on: -p texts and -f files, joined byte for byte.
 *
 *     input_text text;
 *     input_read(&text, &options, &term, &err);
 *     input_bos(&tokens, tokenizer, &err);
 *     input_encode(&tokens, tokenizer, &text, CCA_ENCODE_START, &err);
 *     input_free(&text);
 *
 * A file that begins with gzip's magic bytes is decompressed; nothing else is changed. A file
 * that cannot be read or decompressed is CCA_RUNTIME; text that is not UTF-8 is CCA_BAD_TEXT
 * with file, offset and line, and so is what base/file_kind.h knows as no text, with what makes
 * text of it, unless --invalid-utf8 says otherwise. */
#ifndef CCA_CLI_INPUT_H
#define CCA_CLI_INPUT_H

#include "cli/args.h"
#include "cli/term.h"
#include "cli/text_buffer.h"
#include "tokenizer.h"

typedef struct input_options {
    arg_list pieces;          /* tagged 'p' or 'f' */
    const char *invalid_utf8; /* "error", "replace", "bytes" */
    bool escape;              /* resolve escapes in -p texts */
    bool special;             /* control tokens in the text are control tokens */
} input_options;

extern const arg_option input_args[];

typedef struct input_source {
    const char *name;
    size_t begin; /* of its bytes in the joined text */
} input_source;

typedef struct input_text {
    text_buffer text;
    input_source *sources;
    size_t n_sources;
    size_t *bad; /* offsets of single bytes that are no UTF-8 (--invalid-utf8 bytes) */
    size_t n_bad, bad_capacity;
} input_text;

/* Reads all pieces; without any, standard input unless it is a terminal (CCA_USAGE). Warns on t,
 * which may be NULL, of what can be read and was hardly meant: HTML, and the name of a file as the
 * text of -p. */
cca_status input_read(input_text *out, const input_options *options, term *t, cca_error *err);
/* The same for a single piece. */
cca_status input_read_piece(input_text *out, const input_options *options, const arg_item *piece,
                            term *t, cca_error *err);
void input_free(input_text *text);
/* Lists the bytes of the text that are no UTF-8 in bad, as --invalid-utf8 bytes does. */
cca_status input_note_bad(input_text *text, cca_error *err);

/* Appends BOS where the tokenizer wants one: the one place that does. */
cca_status input_bos(cca_tokens *out, const cca_tokenizer *tok, cca_error *err);
/* Appends the tokens of the text; flags are cca_encode_flags. */
cca_status input_encode(cca_tokens *out, const cca_tokenizer *tok, const input_text *text,
                        unsigned flags, cca_error *err);
/* A whole text into out, which is empty: without the BOS that it starts with, written out or not.
 */
cca_status input_encode_whole(cca_tokens *out, const cca_tokenizer *tok, const input_text *text,
                              bool special, cca_error *err);

/* Appends a file ("-": standard input), decompressed where it is gzip. CCA_BAD_TEXT for what is no
 * text. */
cca_status input_read_file(text_buffer *out, const char *path, cca_error *err);

/* Appends the decimal token ids, separated by white space, that stand in text; each offset is
 * the id's index. name is for messages. */
cca_status input_parse_ids(cca_tokens *out, const text_buffer *text, const char *name,
                           int64_t vocab_size, cca_error *err);

/* A hash of the pieces of a tokenizer, for signatures. */
uint64_t input_hash_tokenizer(const cca_tokenizer *tok);

#endif
