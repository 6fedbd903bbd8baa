/* Number types: every half, roundings at the ties, block formats by hand. */
#include "backend/dtype.h"
#include "tests/unit/test.h"

#include <float.h>
#include <strings.h>

/* The value of a half from its fields. */
static double half_value(uint16_t h) {
    int exponent = (h >> 10) & 31, mantissa = h & 1023;
    double magnitude = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void every_half_survives(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = cca_f16_to_f32((uint16_t)h);
        if ((h & 0x7c00) == 0x7c00) {
            assert_true((h & 0x3ff) ? isnan(f) : isinf(f));
            if (h & 0x3ff) continue;
        } else {
            assert_true(f == half_value((uint16_t)h) && !signbit(f) == !(h & 0x8000));
        }
        assert_int_equal(cca_f32_to_f16(f), h);
    }
}

static void halves_round_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        double low = half_value((uint16_t)h), high = half_value((uint16_t)(h + 1));
        float middle = (float)((low + high) / 2);
        assert_int_equal(cca_f32_to_f16(middle), h % 2 ? h + 1 : h);
        assert_int_equal(cca_f32_to_f16(nextafterf(middle, -1)), h);
        assert_int_equal(cca_f32_to_f16(nextafterf(middle, 1e6f)), h + 1);
    }
    assert_int_equal(cca_f32_to_f16(65519.99f), 0x7bff);
    assert_int_equal(cca_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(cca_f32_to_f16(-INFINITY), 0xfc00);
    assert_true((cca_f32_to_f16(NAN) & 0x7fff) > 0x7c00);
}

static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    assert_int_equal(cca_f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(cca_f32_to_bf16(cca_float_of_bits(0x3f808000)), 0x3f80);
    assert_int_equal(cca_f32_to_bf16(cca_float_of_bits(0x3f808001)), 0x3f81);
    assert_int_equal(cca_f32_to_bf16(cca_float_of_bits(0x3f818000)), 0x3f82);
    assert_int_equal(cca_f32_to_bf16(-INFINITY), 0xff80);
    assert_true(isnan(cca_bf16_to_f32(cca_f32_to_bf16(cca_float_of_bits(0x7f800001)))));
}

static void q8_0_by_hand(void **state) {
    (void)state;
    float x[32] = {127, -127, 63.4f, 63.6f, -0.4f}, y[32];
    cca_q8_0 block;
    cca_dtype_encode(&block, CCA_Q8_0, x, 32);
    assert_int_equal(block.scale, 0x3c00);
    const int8_t want[] = {127, -127, 63, 64, 0, 0};
    assert_memory_equal(block.q, want, sizeof want);
    cca_dtype_decode(y, CCA_Q8_0, &block, 32);
    assert_true(y[0] == 127 && y[1] == -127 && y[3] == 64 && y[31] == 0);
}

static void q4_0_by_hand(void **state) {
    (void)state;
    float x[32] = {-8, 7, 0.4f, -0.6f}, y[32];
    x[16] = 3;
    x[17] = -3;
    cca_q4_0 block;
    cca_dtype_encode(&block, CCA_Q4_0, x, 32);
    assert_int_equal(block.scale, 0x3c00);
    assert_int_equal(block.q[0], 0 | 11 << 4);
    assert_int_equal(block.q[1], 15 | 5 << 4);
    assert_int_equal(block.q[2], 8 | 8 << 4);
    assert_int_equal(block.q[3], 7 | 8 << 4);
    cca_dtype_decode(y, CCA_Q4_0, &block, 32);
    assert_true(y[0] == -8 && y[1] == 7 && y[2] == 0 && y[16] == 3 && y[17] == -3);
}

static void quantised_rows_stay_within_half_a_step(void **state) {
    (void)state;
    uint64_t seed = 1;
    float x[256], y[256];
    char row[256 * 4];
    test_fill(x, 256, &seed, 3);
    const struct {
        cca_dtype type;
        double bound;
    } cases[] = {{CCA_Q8_0, 3.0 / 127 / 2 * 1.01}, {CCA_Q4_0, 3.0 / 8 * 1.01}, {CCA_F32, 1e-30}};
    for (int c = 0; c < 3; c++) {
        cca_dtype_encode(row, cases[c].type, x, 256);
        cca_dtype_decode(y, cases[c].type, row, 256);
        for (int i = 0; i < 256; i++) assert_true(fabsf(x[i] - y[i]) < cases[c].bound);
    }
    memset(x, 0, sizeof x);
    cca_dtype_encode(row, CCA_Q4_0, x, 256);
    cca_dtype_decode(y, CCA_Q4_0, row, 256);
    for (int i = 0; i < 256; i++) assert_true(y[i] == 0);
}

static void sizes(void **state) {
    (void)state;
    size_t bytes;
    assert_true(cca_dtype_row_bytes(&bytes, CCA_Q8_0, 64) && bytes == 68);
    assert_true(cca_dtype_row_bytes(&bytes, CCA_Q4_0, 64) && bytes == 36);
    assert_true(cca_dtype_row_bytes(&bytes, CCA_BF16, 7) && bytes == 14);
    assert_false(cca_dtype_row_bytes(&bytes, CCA_Q8_0, 33));
    assert_false(cca_dtype_row_bytes(&bytes, CCA_F32, -1));
    assert_false(cca_dtype_row_bytes(&bytes, CCA_F32, INT64_MAX));
    assert_false(cca_dtype_row_bytes(&bytes, (cca_dtype)99, 32));
}

/* The format's types: name, number, values and bytes of a block, and of what use they are here. */
enum { RUNS = 1, CACHES = 2, ENCODES = 4, DECODES = 8 };

static const struct {
    const char *name;
    uint32_t id;
    int block, bytes, uses;
} all[] = {
    {"F32", 0, 1, 4, RUNS | CACHES | ENCODES | DECODES},
    {"F16", 1, 1, 2, RUNS | CACHES | ENCODES | DECODES},
    {"Q4_0", 2, 32, 18, RUNS | ENCODES | DECODES},
    {"Q4_1", 3, 32, 20, RUNS | DECODES},
    {"Q5_0", 6, 32, 22, RUNS | ENCODES | DECODES},
    {"Q5_1", 7, 32, 24, RUNS | ENCODES | DECODES},
    {"Q8_0", 8, 32, 34, RUNS | CACHES | ENCODES | DECODES},
    {"Q8_1", 9, 32, 36, 0},
    {"Q2_K", 10, 256, 84, RUNS | DECODES},
    {"Q3_K", 11, 256, 110, RUNS | DECODES},
    {"Q4_K", 12, 256, 144, RUNS | ENCODES | DECODES},
    {"Q5_K", 13, 256, 176, RUNS | ENCODES | DECODES},
    {"Q6_K", 14, 256, 210, RUNS | ENCODES | DECODES},
    {"Q8_K", 15, 256, 292, 0},
    {"IQ2_XXS", 16, 256, 66, 0},
    {"IQ2_XS", 17, 256, 74, 0},
    {"IQ3_XXS", 18, 256, 98, 0},
    {"IQ1_S", 19, 256, 50, 0},
    {"IQ4_NL", 20, 32, 18, RUNS | DECODES},
    {"IQ3_S", 21, 256, 110, 0},
    {"IQ2_S", 22, 256, 82, 0},
    {"IQ4_XS", 23, 256, 136, RUNS | DECODES},
    {"I8", 24, 1, 1, 0},
    {"I16", 25, 1, 2, 0},
    {"I32", 26, 1, 4, 0},
    {"I64", 27, 1, 8, 0},
    {"F64", 28, 1, 8, 0},
    {"IQ1_M", 29, 256, 56, 0},
    {"BF16", 30, 1, 2, RUNS | CACHES | ENCODES | DECODES},
    {"TQ1_0", 34, 256, 54, 0},
    {"TQ2_0", 35, 256, 66, 0},
    {"MXFP4", 39, 32, 17, 0},
    {"NVFP4", 40, 64, 36, 0},
    {"Q1_0", 41, 128, 18, 0},
};

enum { N_ALL = sizeof all / sizeof *all };

static int uses_of(const cca_dtype_facts *t) {
    return (t->runs ? RUNS : 0) | (t->caches ? CACHES : 0) | (t->encode ? ENCODES : 0) |
           (t->decode ? DECODES : 0);
}

static void every_row_of_the_table(void **state) {
    (void)state;
    cca_dtype parsed;
    size_t bytes;
    int n_rows = 0, n_known = 0;
    while (cca_dtype_at(n_rows)) n_rows++;
    for (uint32_t id = 0; id < 1000; id++) n_known += cca_dtype_find(id) != NULL;
    assert_int_equal(n_rows, N_ALL);
    assert_int_equal(n_known, N_ALL);
    for (int i = 0; i < N_ALL; i++) {
        const cca_dtype_facts *t = cca_dtype_find(all[i].id);
        cca_dtype type = (cca_dtype)all[i].id;
        bool runs = all[i].uses & RUNS, decodes = all[i].uses & DECODES;
        assert_non_null(t);
        assert_string_equal(t->name, all[i].name);
        assert_int_equal(t->block, all[i].block);
        assert_int_equal(t->block_bytes, all[i].bytes);
        assert_int_equal(uses_of(t), all[i].uses);
        assert_true(cca_dtype_row_bytes(&bytes, type, 3 * t->block));
        assert_int_equal(bytes, 3 * all[i].bytes);
        assert_int_equal(cca_dtype_block(type), all[i].block);
        assert_int_equal(cca_dtype_runs(t->id), runs);
        assert_int_equal(cca_dtype_converts(t->id, false), decodes);
        assert_int_equal(cca_dtype_converts(t->id, true), decodes && t->block == 1);
        assert_int_equal(cca_dtype_parse(&parsed, all[i].name), runs);
        if (!runs) continue;
        assert_int_equal(parsed, type);
        assert_int_equal(strcasecmp(cca_dtype_name(type), all[i].name), 0);
        assert_true(cca_dtype_parse(&parsed, cca_dtype_name(type)) && parsed == type);
    }
    assert_true(!cca_dtype_runs(99) && !cca_dtype_converts(99, false));
    assert_false(cca_dtype_parse(&parsed, "q8"));
    assert_string_equal(cca_dtype_name(CCA_Q4_0), "q4_0");
}

/* What comes back is encoded to the same bytes; too large a value does not come back. */
static void round_trips(void **state) {
    (void)state;
    enum { N = 256 };
    uint64_t seed = 2;
    for (int i = 0; cca_dtype_at(i); i++) {
        const cca_dtype_facts *t = cca_dtype_at(i);
        float x[N], y[N];
        char first[N * sizeof *x], second[N * sizeof *x];
        if (!t->encode || t->is_sought) continue;
        test_fill(x, N, &seed, 3);
        t->encode(first, x, N);
        t->decode(y, first, N);
        t->encode(second, y, N);
        assert_memory_equal(first, second, N / (size_t)t->block * t->block_bytes);
        memset(x, 0, sizeof x);
        x[0] = isinf(t->limit) ? FLT_MAX : 0.999f * t->limit;
        t->encode(first, x, N);
        t->decode(y, first, N);
        assert_true(isfinite(y[0]) && fabsf(y[0] - x[0]) <= 0.01f * x[0]);
        x[0] = t->limit;
        t->encode(first, x, N);
        t->decode(y, first, N);
        assert_false(isfinite(y[0]));
    }
}

/* Values for trials: numbers up to about 1, many of them, others for another state. */
static void filled_rows(void **state) {
    (void)state;
    enum { N = 512 };
    uint64_t seed = 3;
    for (int i = 0; cca_dtype_at(i); i++) {
        const cca_dtype_facts *t = cca_dtype_at(i);
        float x[2][N], largest = 0, sum = 0;
        char rows[2][N * sizeof(float)];
        if (!t->runs) continue;
        for (int k = 0; k < 2; k++) {
            cca_dtype_fill(rows[k], (cca_dtype)t->id, N, &seed);
            t->decode(x[k], rows[k], N);
        }
        assert_memory_not_equal(rows[0], rows[1], N / (size_t)t->block * t->block_bytes);
        for (int k = 0; k < N; k++) {
            largest = fmaxf(largest, fabsf(x[0][k]));
            sum += fabsf(x[0][k]);
        }
        assert_true(largest > 0.5f && largest < 1.01f && sum > N * 0.1f);
    }
}

/* Blocks of a type apart, as many as a cca_apart has. */
static void take_apart(cca_apart *out, cca_dtype type, const void *blocks) {
    for (int at = 0, i = 0; at < CCA_LARGE_BLOCK; at += (int)cca_dtype_block(type), i++) {
        switch (type) {
        case CCA_Q4_1: cca_apart_q4_1(out, at, (const cca_q4_1 *)blocks + i); break;
        case CCA_Q5_0: cca_apart_q5_0(out, at, (const cca_q5_0 *)blocks + i); break;
        case CCA_Q5_1: cca_apart_q5_1(out, at, (const cca_q5_1 *)blocks + i); break;
        case CCA_Q4_K: cca_apart_q4_k(out, at, (const cca_q4_k *)blocks + i); break;
        case CCA_Q5_K: cca_apart_q5_k(out, at, (const cca_q5_k *)blocks + i); break;
        case CCA_IQ4_NL: cca_apart_iq4_nl(out, at, (const cca_iq4_nl *)blocks + i); break;
        case CCA_IQ4_XS: cca_apart_iq4_xs(out, at, (const cca_iq4_xs *)blocks + i); break;
        case CCA_Q8_0: {
            const cca_q8_0 *b = (const cca_q8_0 *)blocks + i;
            memcpy(out->q + at, b->q, sizeof b->q);
            cca_scale_small(out, at, cca_f16_to_f32(b->scale), 0);
            break;
        }
        default: fail_msg("%s is not taken apart", cca_dtype_name(type));
        }
    }
}

/* The same q, and the scales and minima as f16 numbers. */
static void blocks_become_others_that_are_alike(void **state) {
    (void)state;
    enum { BLOCKS = 5, N = BLOCKS * CCA_LARGE_BLOCK };
    static _Alignas(4) uint8_t blocks[N * 2], others[N * 2];
    uint64_t seed = 4;
    int n_types = 0;
    for (int i = 0; cca_dtype_at(i); i++) {
        const cca_dtype_facts *t = cca_dtype_at(i), *other = cca_dtype_find(t->alike);
        size_t large = CCA_LARGE_BLOCK / (size_t)t->block * t->block_bytes;
        size_t others_large = CCA_LARGE_BLOCK / (size_t)other->block * other->block_bytes;
        if (!t->to_alike) continue;
        n_types++;
        cca_dtype_fill(blocks, (cca_dtype)t->id, N, &seed);
        for (int b = 0; b < N / t->block; b++) { /* minima unlike scales */
            uint16_t min = cca_f32_to_f16(0.001f * (float)(b + 1));
            memcpy(blocks + (size_t)b * t->block_bytes + t->halves[1], &min, sizeof min);
        }
        cca_dtype_convert(others, t->alike, blocks, (cca_dtype)t->id, N);
        for (size_t b = 0; b < BLOCKS; b++) {
            cca_apart from = {0}, to = {0};
            take_apart(&from, (cca_dtype)t->id, blocks + b * large);
            take_apart(&to, t->alike, others + b * others_large);
            assert_memory_equal(to.q, from.q, sizeof from.q);
            for (int s = 0; s < CCA_LARGE_BLOCK / CCA_SCALED; s++) {
                float scale = from.scale[s], min = from.min[s];
                assert_true(to.scale[s] == cca_f16_to_f32(cca_f32_to_f16(scale)));
                assert_true(to.min[s] == cca_f16_to_f32(cca_f32_to_f16(min)));
                assert_true(fabsf(to.scale[s] - scale) <= 0x1p-11f * fabsf(scale));
                assert_true(fabsf(to.min[s] - min) <= 0x1p-11f * fabsf(min));
                if (t->block == CCA_SMALL_BLOCK) assert_true(to.scale[s] == scale);
            }
        }
    }
    assert_int_equal(n_types, 5);
}

/* By way of floats: more values than are converted at a time, and a number that fills nothing. */
static void other_types_are_converted_by_value(void **state) {
    (void)state;
    enum { N = 768, ODD = 259 };
    uint64_t seed = 5;
    cca_q6_k blocks[N / CCA_LARGE_BLOCK];
    uint16_t got[N], wanted[N];
    float x[N];
    cca_dtype_fill(blocks, CCA_Q6_K, N, &seed);
    cca_dtype_convert(got, CCA_BF16, blocks, CCA_Q6_K, N);
    cca_dtype_decode(x, CCA_Q6_K, blocks, N);
    cca_dtype_encode(wanted, CCA_BF16, x, N);
    assert_memory_equal(got, wanted, sizeof got);
    cca_dtype_convert(got, CCA_F16, x, CCA_F32, ODD);
    cca_dtype_encode(wanted, CCA_F16, x, ODD);
    assert_memory_equal(got, wanted, sizeof got);
}

static void numbers_of_file_types(void **state) {
    (void)state;
    assert_int_equal(cca_dtype_find(CCA_F32)->file_type, 0);
    assert_int_equal(cca_dtype_find(CCA_F16)->file_type, 1);
    assert_int_equal(cca_dtype_find(CCA_Q4_0)->file_type, 2);
    assert_int_equal(cca_dtype_find(CCA_Q8_0)->file_type, 7);
    assert_int_equal(cca_dtype_find(CCA_BF16)->file_type, 32);
    assert_int_equal(cca_dtype_find(CCA_Q4_K)->file_type, 14);
    assert_int_equal(cca_dtype_find(CCA_Q6_K)->file_type, 18);
    assert_int_equal(cca_dtype_find(CCA_IQ4_XS)->file_type, 30);
}

/* One value, or a scale, that is infinite or none among many that are finite. */
static void what_is_not_finite_is_found(void **state) {
    (void)state;
    enum { N = 768 };
    static const uint16_t odd[] = {0x7c00, 0xfc00, 0xffff};
    uint64_t seed = 3;
    uint8_t bytes[N * sizeof(float)];
    for (int i = 0; cca_dtype_at(i) && cca_dtype_at(i)->runs; i++) {
        const cca_dtype_facts *t = cca_dtype_at(i);
        cca_dtype type = (cca_dtype)t->id;
        const size_t in_block = type == CCA_F32 ? 2 : t->halves[0]; /* the upper half of a float */
        const size_t places[] = {0, (N / (size_t)t->block - 1) * t->block_bytes};
        cca_dtype_fill(bytes, type, N, &seed);
        assert_true(cca_dtype_all_finite(type, bytes, N));
        for (int k = 0; k < 6; k++) {
            uint16_t bits = odd[k / 2], kept;
            uint8_t *at = bytes + places[k % 2] + in_block;
            if (type == CCA_F32 || type == CCA_BF16) bits |= 0x0380;
            memcpy(&kept, at, sizeof kept);
            memcpy(at, &bits, sizeof bits);
            assert_false(cca_dtype_all_finite(type, bytes, N));
            memcpy(at, &kept, sizeof kept);
        }
        assert_true(cca_dtype_all_finite(type, bytes, N));
    }
    static const uint16_t largest_half = 0x7bff, largest_bf16 = 0xff7f;
    assert_true(cca_dtype_all_finite(CCA_F16, &largest_half, 1));
    assert_true(cca_dtype_all_finite(CCA_BF16, &largest_bf16, 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_survives),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(q8_0_by_hand),
        cmocka_unit_test(q4_0_by_hand),
        cmocka_unit_test(quantised_rows_stay_within_half_a_step),
        cmocka_unit_test(sizes),
        cmocka_unit_test(every_row_of_the_table),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(filled_rows),
        cmocka_unit_test(blocks_become_others_that_are_alike),
        cmocka_unit_test(other_types_are_converted_by_value),
        cmocka_unit_test(numbers_of_file_types),
        cmocka_unit_test(what_is_not_finite_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
