/* GGUF files built in memory, byte by byte, and each kind of damage done to them. */
#include "gguf/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

typedef struct builder {
    uint8_t bytes[8192];
    size_t size;
} builder;

static void put(builder *b, const void *bytes, size_t n) {
    assert_true(b->size + n <= sizeof b->bytes);
    memcpy(b->bytes + b->size, bytes, n);
    b->size += n;
}

static void put_u8(builder *b, uint8_t v) {
    put(b, &v, sizeof v);
}

static void put_u32(builder *b, uint32_t v) {
    put(b, &v, sizeof v);
}

static void put_u64(builder *b, uint64_t v) {
    put(b, &v, sizeof v);
}

static void put_string(builder *b, const char *s) {
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

static void put_header(builder *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys) {
    put(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_keys);
}

static void put_key(builder *b, const char *name, uint32_t type) {
    put_string(b, name);
    put_u32(b, type);
}

static void put_scalar(builder *b, const char *name, uint32_t type, const void *v, size_t n) {
    put_key(b, name, type);
    put(b, v, n);
}

static void put_array(builder *b, const char *name, uint32_t type, uint64_t n) {
    put_key(b, name, CCA_GGUF_ARRAY);
    put_u32(b, type);
    put_u64(b, n);
}

static void put_tensor(builder *b, const char *name, uint64_t cols, uint64_t rows, uint32_t type,
                       uint64_t offset) {
    put_string(b, name);
    put_u32(b, 2);
    put_u64(b, cols);
    put_u64(b, rows);
    put_u32(b, type);
    put_u64(b, offset);
}

static void pad(builder *b, size_t alignment) {
    while (b->size % alignment != 0) put_u8(b, 0);
}

/* Two keys and two tensors of 4 × 2 floats. */
static void build_small(builder *b) {
    const float weights[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    put_header(b, 3, 2, 2);
    put_key(b, "general.architecture", CCA_GGUF_STRING);
    put_string(b, "llama");
    put_array(b, "tokens", CCA_GGUF_STRING, 3);
    put_string(b, "<unk>");
    put_string(b, "");
    put_string(b, "b");
    put_tensor(b, "first", 4, 2, 0, 0);
    put_tensor(b, "second", 4, 2, 0, 32);
    pad(b, 32);
    put(b, weights, sizeof weights);
    put(b, weights, sizeof weights);
}

static cca_gguf *parse(const builder *b) {
    cca_gguf *file;
    cca_error err = {.text = ""};
    cca_status status = cca_gguf_parse(&file, b->bytes, b->size, "m.gguf", &err);
    if (status) fail_msg("%s", err.text);
    assert_non_null(file);
    return file;
}

/* Expects CCA_BAD_MODEL and a message that names the file and holds each of two texts. */
static void expect_bad(const builder *b, const char *first, const char *second) {
    cca_gguf *file;
    cca_error err = {.text = ""};
    /* A copy of just the right size, so that ASan sees a read behind the end. */
    uint8_t *bytes = malloc(b->size ? b->size : 1);
    assert_non_null(bytes);
    memcpy(bytes, b->bytes, b->size);
    assert_int_equal(cca_gguf_parse(&file, bytes, b->size, "m.gguf", &err), CCA_BAD_MODEL);
    assert_null(file);
    free(bytes);
    if (!strstr(err.text, "m.gguf: ") || !strstr(err.text, first) || !strstr(err.text, second)) {
        fail_msg("'%s' has no '%s' or no '%s'", err.text, first, second);
    }
}

static void small_file(void **state) {
    (void)state;
    builder b = {0};
    build_small(&b);
    cca_gguf *file = parse(&b);
    assert_string_equal(cca_gguf_name(file), "m.gguf");
    assert_int_equal(cca_gguf_size(file), b.size);
    assert_int_equal(cca_gguf_n_tensors(file), 2);
    assert_int_equal(cca_gguf_n_keys(file), 2);
    cca_gguf_type type;
    assert_string_equal(cca_gguf_key_at(file, 1, &type), "tokens");
    assert_int_equal(type, CCA_GGUF_ARRAY);
    assert_null(cca_gguf_key_at(file, 2, &type));

    const cca_gguf_tensor *t = cca_gguf_find(file, "second");
    assert_ptr_equal(t, cca_gguf_tensor_at(file, 1));
    assert_null(cca_gguf_tensor_at(file, 2));
    assert_null(cca_gguf_find(file, "third"));
    assert_string_equal(t->name, "second");
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 4);
    assert_int_equal(t->dims[1], 2);
    assert_int_equal(t->dims[2], 1);
    assert_int_equal(t->dims[3], 1);
    assert_int_equal(t->bytes, 32);
    assert_int_equal(t->offset, b.size - 32);
    assert_ptr_equal(t->data, b.bytes + b.size - 32);

    cca_gguf_string s;
    cca_gguf_array tokens;
    assert_int_equal(cca_gguf_str(&s, file, "general.architecture", NULL, NULL), CCA_OK);
    assert_int_equal(s.size, 5);
    assert_memory_equal(s.bytes, "llama", 5);
    assert_int_equal(cca_gguf_arr(&tokens, file, "tokens", true, NULL), CCA_OK);
    assert_int_equal(tokens.n, 3);
    assert_int_equal(tokens.strings[0].size, 5);
    assert_int_equal(tokens.strings[1].size, 0);
    assert_memory_equal(tokens.strings[2].bytes, "b", 1);
    cca_gguf_close(file);
}

static void truncation(void **state) {
    (void)state;
    builder whole = {0};
    build_small(&whole);
    for (size_t size = 0; size < whole.size; size++) {
        builder b = whole;
        b.size = size;
        expect_bad(&b, "", "");
    }
    builder b = whole;
    b.size = whole.size - 1;
    expect_bad(&b, "tensor 'second'", "truncated");
    b.size = 24 + 20; /* too short for two keys at all */
    expect_bad(&b, "header", "2 keys cannot fit");
    b.size = 24 + 8 + 20 + 4 + 8 + 5 + 2; /* before the second key's name */
    expect_bad(&b, "key number 1", "truncated");
    b.size = 24 + 8 + 20 + 4 + 8 + 2; /* inside its value */
    expect_bad(&b, "key 'general.architecture'", "truncated");
}

/* Whatever one changed byte makes of the file, the parser survives it. */
static void single_bytes(void **state) {
    (void)state;
    builder whole = {0};
    build_small(&whole);
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    for (size_t at = 0; at < whole.size; at++) {
        for (size_t v = 0; v < sizeof values; v++) {
            builder b = whole;
            cca_gguf *file;
            b.bytes[at] = values[v];
            cca_status status = cca_gguf_parse(&file, b.bytes, b.size, "m.gguf", NULL);
            assert_true(!status ? file != NULL : status == CCA_BAD_MODEL && !file);
            cca_gguf_close(file);
        }
    }
}

static void bad_headers(void **state) {
    (void)state;
    builder b = {0};
    put(&b, "GGML0123456789012345678901234567", 32);
    expect_bad(&b, "not a GGUF file", "");
    b.size = 0;
    put_header(&b, 1, 0, 0);
    expect_bad(&b, "version 1", "");
    b.size = 0;
    put_header(&b, 0x03000000, 0, 0);
    expect_bad(&b, "big-endian", "");
    b.size = 0;
    put_header(&b, 3, 0, UINT64_MAX);
    expect_bad(&b, "header", "18446744073709551615 keys");
    b.size = 0;
    put_header(&b, 3, UINT64_MAX / 2, 0);
    expect_bad(&b, "header", "9223372036854775807 tensors");
}

static void bad_keys(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 3, 0, 2);
    put_scalar(&b, "same", CCA_GGUF_U32, "\1\0\0\0", 4);
    put_scalar(&b, "same", CCA_GGUF_U32, "\2\0\0\0", 4);
    expect_bad(&b, "key 'same'", "twice");

    b.size = 0;
    put_header(&b, 3, 0, 1);
    put_scalar(&b, "odd", 13, "\1\0\0\0", 4);
    expect_bad(&b, "key 'odd'", "unknown type 13");

    b.size = 0;
    put_header(&b, 3, 0, 1);
    put_scalar(&b, "flag", CCA_GGUF_BOOL, "\2", 1);
    expect_bad(&b, "key 'flag'", "bool of value 2");

    b.size = 0;
    put_header(&b, 3, 0, 1);
    put_array(&b, "nested", CCA_GGUF_ARRAY, 1);
    put_array(&b, "", CCA_GGUF_U8, 0);
    expect_bad(&b, "key 'nested'", "array of arrays");

    b.size = 0;
    put_header(&b, 3, 0, 1);
    put_array(&b, "list", 77, 1);
    put_u64(&b, 0);
    expect_bad(&b, "key 'list'", "unknown type 77");

    b.size = 0;
    put_header(&b, 3, 0, 1);
    put_array(&b, "strings", CCA_GGUF_STRING, UINT64_MAX / 16);
    put_u64(&b, 0);
    expect_bad(&b, "key 'strings'", "1152921504606846975 strings");

    b.size = 0;
    put_header(&b, 3, 0, 1);
    put_array(&b, "wide", CCA_GGUF_U64, UINT64_MAX / 8 + 2); /* times 8 is 8 again */
    put_u64(&b, 0);
    expect_bad(&b, "key 'wide'", "truncated");

    b.size = 0;
    put_header(&b, 3, 0, 1);
    put_u64(&b, UINT64_MAX - 3);
    put(&b, "name and more bytes", 19);
    expect_bad(&b, "key number 0", "truncated");

    b.size = 0;
    put_header(&b, 3, 0, 1);
    put_scalar(&b, "last", CCA_GGUF_U64, "12345678", 8);
    b.size--;
    expect_bad(&b, "key 'last'", "truncated");

    b.size = 0;
    put_header(&b, 3, 0, 1);
    put_scalar(&b, "", CCA_GGUF_U64, "12345678", 8);
    expect_bad(&b, "key number 0", "empty name");

    b.size = 0;
    put_header(&b, 3, 0, 1);
    put_scalar(&b, "a\nb", CCA_GGUF_U64, "12345678", 8);
    expect_bad(&b, "key number 0", "control character");
}

static void bad_alignment(void **state) {
    (void)state;
    static const uint32_t bad[] = {0, 1, 4, 24, 0x80000000u};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        builder b = {0};
        put_header(&b, 3, 0, 1);
        put_scalar(&b, "general.alignment", CCA_GGUF_U32, &bad[i], 4);
        expect_bad(&b, "key 'general.alignment'", "power of two");
    }
    builder b = {0};
    put_header(&b, 3, 0, 1);
    put_key(&b, "general.alignment", CCA_GGUF_STRING);
    put_string(&b, "32");
    expect_bad(&b, "key 'general.alignment'", "type string");
}

static void other_alignment(void **state) {
    (void)state;
    builder b = {0};
    uint32_t alignment = 64;
    put_header(&b, 2, 2, 1);
    put_scalar(&b, "general.alignment", CCA_GGUF_U32, &alignment, 4);
    put_tensor(&b, "a", 4, 1, 0, 64);
    put_tensor(&b, "b", 4, 1, 0, 0);
    pad(&b, 64);
    size_t start = b.size;
    put(&b, "0123456789012345", 16);
    pad(&b, 64);
    put(&b, "abcdefghijklmnop", 16);
    cca_gguf *file = parse(&b);
    assert_int_equal(cca_gguf_find(file, "a")->offset, start + 64);
    assert_memory_equal(cca_gguf_find(file, "a")->data, "abcd", 4);
    assert_memory_equal(cca_gguf_find(file, "b")->data, "0123", 4);
    cca_gguf_close(file);
}

/* A file of one tensor that is described as given, and 64 bytes of data. */
static void expect_bad_tensor(uint64_t cols, uint64_t rows, uint32_t type, uint64_t offset,
                              const char *message) {
    builder b = {0};
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "blk.0.w", cols, rows, type, offset);
    pad(&b, 32);
    for (int i = 0; i < 8; i++) put_u64(&b, 0);
    expect_bad(&b, "tensor 'blk.0.w'", message);
}

static void bad_tensors(void **state) {
    (void)state;
    expect_bad_tensor(4, 1, 4, 0, "unknown type 4");
    expect_bad_tensor(4, 1, 4711, 0, "unknown type 4711");
    expect_bad_tensor(0, 1, 0, 0, "dimension 0 is 0");
    expect_bad_tensor(1, UINT64_MAX, 0, 0, "dimension 1");
    expect_bad_tensor(UINT64_C(1) << 40, UINT64_C(1) << 40, 0, 0, "overflow");
    expect_bad_tensor(UINT64_C(1) << 31, UINT64_C(1) << 31, 0, 0, "overflow");
    expect_bad_tensor(UINT64_C(1) << 30, UINT64_C(1) << 30, 0, 0, "truncated");
    expect_bad_tensor(33, 1, 8, 0, "no multiple of a Q8_0 block's 32");
    expect_bad_tensor(128, 1, 12, 0, "no multiple of a Q4_K block's 256");
    expect_bad_tensor(4, 1, 0, 8, "offset 8 is no multiple of the alignment 32");
    expect_bad_tensor(4, 1, 0, UINT64_MAX - 31, "truncated");
    expect_bad_tensor(17, 1, 0, 0, "truncated");
    expect_bad_tensor(16, 1, 0, 32, "truncated");

    builder b = {0};
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "twin", 4, 1, 0, 0);
    put_tensor(&b, "twin", 4, 1, 0, 32);
    pad(&b, 32);
    for (int i = 0; i < 8; i++) put_u64(&b, 0);
    expect_bad(&b, "tensor 'twin'", "twice");

    b.size = 0;
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "upper", 4, 1, 0, 32);
    put_tensor(&b, "lower", 4, 3, 0, 0);
    pad(&b, 32);
    for (int i = 0; i < 8; i++) put_u64(&b, 0);
    expect_bad(&b, "tensor 'upper'", "overlaps tensor 'lower'");

    b.size = 0;
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "long", 33, 1, 24, 0); /* one byte too long */
    put_tensor(&b, "next", 4, 1, 24, 32);
    pad(&b, 32);
    for (int i = 0; i < 8; i++) put_u64(&b, 0);
    expect_bad(&b, "tensor 'next'", "overlaps tensor 'long'");

    for (uint32_t n_dims = 0; n_dims < 6; n_dims += 5) {
        b.size = 0;
        put_header(&b, 3, 1, 0);
        put_string(&b, "deep");
        put_u32(&b, n_dims);
        for (int i = 0; i < 8; i++) put_u64(&b, 1);
        expect_bad(&b, "tensor 'deep'", "dimensions");
    }
}

static void quantised_types(void **state) {
    (void)state;
    builder b = {0};
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "k", 512, 2, 12, 0);
    put_tensor(&b, "q", 64, 1, 8, 576);
    pad(&b, 32);
    for (int i = 0; i < 576 + 68; i++) put_u8(&b, 0);
    cca_gguf *file = parse(&b);
    assert_int_equal(cca_gguf_find(file, "k")->bytes, 4 * 144);
    assert_int_equal(cca_gguf_find(file, "q")->bytes, 2 * 34);
    cca_gguf_close(file);
    assert_string_equal(cca_gguf_type_name(12), "Q4_K");
    assert_string_equal(cca_gguf_type_name(30), "BF16");
    assert_string_equal(cca_gguf_type_name(4), "type 4");
    assert_string_equal(cca_gguf_type_name(99), "type 99");
}

static cca_gguf *parse_numbers(builder *b) {
    const double wide = 0.25, huge = 1e300;
    const float single = 10000.5f, infinite = 1.0f / 0.0f;
    put_header(b, 3, 0, 14);
    put_scalar(b, "u8", CCA_GGUF_U8, "\xff", 1);
    put_scalar(b, "i8", CCA_GGUF_I8, "\xfe", 1);
    put_scalar(b, "u16", CCA_GGUF_U16, "\x01\x80", 2);
    put_scalar(b, "i16", CCA_GGUF_I16, "\x01\x40", 2);
    put_scalar(b, "u32", CCA_GGUF_U32, "\xff\xff\xff\xff", 4);
    put_scalar(b, "i32", CCA_GGUF_I32, "\x07\0\0\0", 4);
    put_scalar(b, "f32", CCA_GGUF_F32, &single, 4);
    put_scalar(b, "inf", CCA_GGUF_F32, &infinite, 4);
    put_scalar(b, "yes", CCA_GGUF_BOOL, "\1", 1);
    put_scalar(b, "u64", CCA_GGUF_U64, "\0\0\0\0\1\0\0\0", 8);
    put_scalar(b, "i64", CCA_GGUF_I64, "\xfd\xff\xff\xff\xff\xff\xff\xff", 8);
    put_scalar(b, "f64", CCA_GGUF_F64, &wide, 8);
    put_scalar(b, "huge", CCA_GGUF_F64, &huge, 8);
    put_array(b, "list", CCA_GGUF_I16, 3);
    put(b, "\x05\0\xff\xff\0\x80", 6);
    return parse(b);
}

static void typed_values(void **state) {
    (void)state;
    builder b = {0};
    cca_gguf *file = parse_numbers(&b);
    static const struct {
        const char *key;
        uint64_t value;
    } integers[] = {{"u8", 255},         {"u16", 0x8001}, {"i16", 0x4001},
                    {"u32", UINT32_MAX}, {"i32", 7},      {"u64", UINT64_C(1) << 32}};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        uint64_t wide;
        assert_int_equal(cca_gguf_u64(&wide, file, integers[i].key, NULL, NULL), CCA_OK);
        assert_int_equal(wide, integers[i].value);
    }
    uint32_t n, seven = 7;
    float f, two = 2;
    bool yes = false;
    assert_int_equal(cca_gguf_u32(&n, file, "u32", NULL, NULL), CCA_OK);
    assert_int_equal(n, UINT32_MAX);
    assert_int_equal(cca_gguf_u32(&n, file, "none", &seven, NULL), CCA_OK);
    assert_int_equal(n, 7);
    assert_int_equal(cca_gguf_f32(&f, file, "f32", NULL, NULL), CCA_OK);
    assert_true(f == 10000.5f);
    assert_int_equal(cca_gguf_f32(&f, file, "f64", NULL, NULL), CCA_OK);
    assert_true(f == 0.25f);
    assert_int_equal(cca_gguf_f32(&f, file, "none", &two, NULL), CCA_OK);
    assert_true(f == 2);
    assert_int_equal(cca_gguf_bool(&yes, file, "yes", NULL, NULL), CCA_OK);
    assert_true(yes);
    cca_gguf_array list;
    assert_int_equal(cca_gguf_arr(&list, file, "list", true, NULL), CCA_OK);
    assert_int_equal(list.type, CCA_GGUF_I16);
    assert_true(cca_gguf_array_number(&list, 0) == 5);
    assert_true(cca_gguf_array_number(&list, 1) == -1);
    assert_true(cca_gguf_array_number(&list, 2) == -32768);
    assert_true(cca_gguf_array_number(&list, 3) == 0);
    assert_int_equal(cca_gguf_arr(&list, file, "none", false, NULL), CCA_OK);
    assert_int_equal(list.n, 0);
    cca_gguf_close(file);
}

static void wrong_values(void **state) {
    (void)state;
    builder b = {0};
    cca_gguf *file = parse_numbers(&b);
    cca_error err;
    uint32_t n, seven = 7;
    float f, two = 2;
    bool yes;
    cca_gguf_string s;
    cca_gguf_array list;
    assert_int_equal(cca_gguf_u32(&n, file, "none", NULL, &err), CCA_BAD_MODEL);
    assert_string_equal(err.text, "m.gguf: key 'none' is missing");
    assert_int_equal(cca_gguf_u32(&n, file, "u64", &seven, &err), CCA_BAD_MODEL);
    assert_string_equal(err.text, "m.gguf: key 'u64' is out of range: 4294967296");
    assert_int_equal(cca_gguf_u32(&n, file, "i8", NULL, &err), CCA_BAD_MODEL);
    assert_string_equal(err.text, "m.gguf: key 'i8' is out of range: -2");
    assert_int_equal(cca_gguf_u32(&n, file, "i64", NULL, &err), CCA_BAD_MODEL);
    assert_string_equal(err.text, "m.gguf: key 'i64' is out of range: -3");
    assert_int_equal(cca_gguf_u32(&n, file, "f32", NULL, &err), CCA_BAD_MODEL);
    assert_string_equal(err.text, "m.gguf: key 'f32' is of type f32, not an integer");
    assert_int_equal(cca_gguf_u32(&n, file, "yes", NULL, &err), CCA_BAD_MODEL);
    assert_int_equal(cca_gguf_f32(&f, file, "yes", &two, &err), CCA_BAD_MODEL);
    assert_int_equal(cca_gguf_f32(&f, file, "huge", NULL, &err), CCA_BAD_MODEL);
    assert_int_equal(cca_gguf_f32(&f, file, "inf", NULL, &err), CCA_BAD_MODEL);
    assert_int_equal(cca_gguf_bool(&yes, file, "u8", NULL, &err), CCA_BAD_MODEL);
    assert_int_equal(cca_gguf_str(&s, file, "u8", NULL, &err), CCA_BAD_MODEL);
    assert_int_equal(cca_gguf_arr(&list, file, "u8", false, &err), CCA_BAD_MODEL);
    assert_string_equal(err.text, "m.gguf: key 'u8' is of type u8, not array");
    assert_int_equal(cca_gguf_arr(&list, file, "none", true, &err), CCA_BAD_MODEL);
    cca_gguf_close(file);
}

/* One tensor of 32 bytes and its checksum, plus add. */
static void build_checksum(builder *b, uint32_t add, uint64_t n_sums) {
    static const char data[] = "01234567890123456789012345678901";
    put_header(b, 3, 1, 1);
    put_array(b, "cca.crc32", CCA_GGUF_U32, n_sums);
    for (uint64_t i = 0; i < n_sums; i++) {
        put_u32(b, (uint32_t)crc32(0, (const Bytef *)data, 32) + add);
    }
    put_tensor(b, "w", 8, 1, 0, 0);
    pad(b, 32);
    put(b, data, 32);
}

static void checksums(void **state) {
    (void)state;
    cca_error err;
    bool checked;
    builder good = {0}, bad = {0}, count = {0}, none = {0};
    build_checksum(&good, 0, 1);
    build_checksum(&bad, 1, 1);
    build_checksum(&count, 0, 2);
    build_small(&none);

    cca_gguf *file = parse(&good);
    assert_int_equal(cca_gguf_check_crc(&checked, file, &err), CCA_OK);
    assert_true(checked);
    cca_gguf_close(file);
    file = parse(&none);
    assert_int_equal(cca_gguf_check_crc(&checked, file, &err), CCA_OK);
    assert_false(checked);
    cca_gguf_close(file);
    file = parse(&bad);
    assert_int_equal(cca_gguf_check_crc(&checked, file, &err), CCA_BAD_MODEL);
    assert_non_null(strstr(err.text, "tensor 'w'"));
    cca_gguf_close(file);
    file = parse(&count);
    assert_int_equal(cca_gguf_check_crc(&checked, file, &err), CCA_BAD_MODEL);
    assert_non_null(strstr(err.text, "cca.crc32"));
    cca_gguf_close(file);
}

static void opening(void **state) {
    (void)state;
    cca_error err;
    cca_gguf *file;
    char path[] = "/tmp/test_gguf_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(cca_gguf_open(&file, "/nowhere/m.gguf", &err), CCA_BAD_MODEL);
    assert_string_equal(err.text, "/nowhere/m.gguf: cannot open: No such file or directory");
    assert_int_equal(cca_gguf_open(&file, "tests", &err), CCA_BAD_MODEL);
    assert_string_equal(err.text, "tests: is a folder");
    assert_int_equal(cca_gguf_open(&file, "/dev/null", &err), CCA_BAD_MODEL);
    assert_non_null(strstr(err.text, "not a regular file"));
    assert_int_equal(cca_gguf_open(&file, path, &err), CCA_BAD_MODEL);
    assert_non_null(strstr(err.text, "empty"));
    assert_null(file);

    builder b = {0};
    build_small(&b);
    assert_int_equal(write(fd, b.bytes, b.size), (ssize_t)b.size);
    close(fd);
    assert_int_equal(cca_gguf_open(&file, path, &err), CCA_OK);
    assert_int_equal(cca_gguf_n_tensors(file), 2);
    assert_memory_equal(cca_gguf_find(file, "first")->data, b.bytes + b.size - 64, 32);
    cca_gguf_close(file);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_file),      cmocka_unit_test(truncation),
        cmocka_unit_test(single_bytes),    cmocka_unit_test(bad_headers),
        cmocka_unit_test(bad_keys),        cmocka_unit_test(bad_alignment),
        cmocka_unit_test(other_alignment), cmocka_unit_test(bad_tensors),
        cmocka_unit_test(quantised_types), cmocka_unit_test(typed_values),
        cmocka_unit_test(wrong_values),    cmocka_unit_test(checksums),
        cmocka_unit_test(opening),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
