/* Number types: every half, roundings at the ties, block formats by hand. */
#include "backend/dtype.h"
#include "tests/unit/test.h"

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

static void sizes_and_names(void **state) {
    (void)state;
    size_t bytes;
    assert_true(cca_dtype_row_bytes(&bytes, CCA_Q8_0, 64) && bytes == 68);
    assert_true(cca_dtype_row_bytes(&bytes, CCA_Q4_0, 64) && bytes == 36);
    assert_true(cca_dtype_row_bytes(&bytes, CCA_BF16, 7) && bytes == 14);
    assert_false(cca_dtype_row_bytes(&bytes, CCA_Q8_0, 33));
    assert_false(cca_dtype_row_bytes(&bytes, CCA_F32, -1));
    assert_false(cca_dtype_row_bytes(&bytes, CCA_F32, INT64_MAX));
    cca_dtype type;
    assert_true(cca_dtype_parse(&type, "BF16") && type == CCA_BF16);
    assert_false(cca_dtype_parse(&type, "q8"));
    assert_string_equal(cca_dtype_name(CCA_Q4_0), "q4_0");
    assert_true(cca_dtype_known(30) && !cca_dtype_known(12));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_survives),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(q8_0_by_hand),
        cmocka_unit_test(q4_0_by_hand),
        cmocka_unit_test(quantised_rows_stay_within_half_a_step),
        cmocka_unit_test(sizes_and_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
