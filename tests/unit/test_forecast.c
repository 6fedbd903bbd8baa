/* What a forecast is made of: sums over layers and chunks that follow from what was measured,
 * whatever that was. */
#include "check/forecast.h"
#include "engine.h"
#include "export/model_file.h"
#include "tests/unit/test.h"

#include <unistd.h>

enum { CHUNK = 64, MOST = 1024 };

typedef struct fixture {
    char path[40];
    cca_gguf *file;
    cca_config config;
    cca_backend *backend;
} fixture;

/* Wide enough that only some rows of its matrices are timed. */
static void open_fixture(fixture *f, const cca_random_shape *shape) {
    cca_error err;
    strcpy(f->path, "/tmp/cca-test-speed-XXXXXX");
    int file = mkstemp(f->path);
    assert_true(file >= 0);
    close(file);
    cca_export_options o = {.random = shape, .output = f->path, .has_type = true, .type = CCA_Q8_0};
    if (cca_export(&o, &err) != CCA_OK) fail_msg("%s", err.text);
    if (cca_gguf_open(&f->file, f->path, &err) != CCA_OK) fail_msg("%s", err.text);
    if (cca_config_read(&f->config, f->file, &err) != CCA_OK) fail_msg("%s", err.text);
    cca_backend_options b = {.n_threads = 1};
    assert_int_equal(cca_backend_cpu(&f->backend, &b, &err), CCA_OK);
}

static void close_fixture(fixture *f) {
    cca_backend_close(f->backend);
    cca_gguf_close(f->file);
    unlink(f->path);
}

static void time_attention(cca_forecaster *forecast, cca_attn attn, cca_dtype type, int64_t chunk) {
    cca_error err;
    cca_state_options o = {.ctx_size = MOST, .chunk_size = chunk, .k_type = type, .v_type = type};
    cca_policy_options policy = {.attn = attn, .group_size = 4, .window_size = 64};
    if (attn == CCA_ATTN_SINKS) policy.n_sinks = 8;
    assert_int_equal(cca_policy_make(&o.policy, &policy, &err), CCA_OK);
    if (cca_forecast_attention(forecast, &o, MOST, &err) != CCA_OK) fail_msg("%s", err.text);
}

/* The time of the tokens behind the first n, up to n + MOST. */
static double more(const cca_forecaster *forecast, int64_t n) {
    return cca_forecast_prefill(forecast, n + MOST) - cca_forecast_prefill(forecast, n);
}

/* threads: 0 has layers timed as a device's. */
static cca_forecaster *open_forecast(fixture *f, const cca_random_shape *shape, int threads,
                                     int64_t chunk) {
    cca_error err;
    cca_forecaster *forecast;
    open_fixture(f, shape);
    if (cca_forecast_new(&forecast, f->backend, threads, f->file, &f->config, chunk, &err) !=
        CCA_OK) {
        fail_msg("%s", err.text);
    }
    return forecast;
}

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-6 * fmax(fabs(a), fabs(b));
}

static void sums(void **state) {
    (void)state;
    fixture f;
    cca_forecaster *forecast =
        open_forecast(&f, &(cca_random_shape){128, 3, 4, 2, 256, 300, 5}, 1, CHUNK);

    /* A window sees the same number of keys everywhere behind itself. */
    time_attention(forecast, CCA_ATTN_WINDOW, CCA_BF16, CHUNK);
    double first = more(forecast, MOST), token = cca_forecast_decode(forecast, MOST + 3);
    assert_true(first > 0 && token > 0);
    assert_true(near(more(forecast, 9 * MOST), first) &&
                near(cca_forecast_decode(forecast, 9 * MOST + 3), token));
    assert_true(near(more(forecast, MOST) / 2, cca_forecast_prefill(forecast, MOST + MOST / 2) -
                                                   cca_forecast_prefill(forecast, MOST)));

    /* Full attention sees more with each token, and as much more each time. */
    time_attention(forecast, CCA_ATTN_FULL, CCA_F32, CHUNK);
    double a = more(forecast, MOST), b = more(forecast, 2 * MOST), c = more(forecast, 3 * MOST);
    assert_true(a > 0 && b >= a && near(c - b, b - a));
    assert_true(cca_forecast_decode(forecast, 8 * MOST) >= cca_forecast_decode(forecast, MOST));

    /* A group of four is one key. */
    time_attention(forecast, CCA_ATTN_CCA, CCA_Q8_0, CHUNK);
    assert_true(more(forecast, 4 * MOST) >= more(forecast, 2 * MOST));
    cca_forecast_free(forecast);
    close_fixture(&f);
}

/* Rows that stand for all of a matrix: the sum grows with the rows, however few are timed. */
static void parts_stand_for_all(void **state) {
    (void)state;
    enum { FEW = 8 }; /* tokens a chunk */
    fixture f;
    cca_forecaster *forecast =
        open_forecast(&f, &(cca_random_shape){2048, 1, 16, 16, 6144, 64, 5}, 1, FEW);
    time_attention(forecast, CCA_ATTN_CCA, CCA_BF16, FEW);
    assert_true(isfinite(cca_forecast_prefill(forecast, MOST)) &&
                cca_forecast_prefill(forecast, MOST) > 0);
    assert_true(isfinite(cca_forecast_decode(forecast, MOST)) &&
                cca_forecast_decode(forecast, MOST) > 0);
    cca_forecast_free(forecast);
    close_fixture(&f);
}

/* A device is timed in whole layers, with rotation in attention; here the CPU plays one. */
static void whole_layers(void **state) {
    (void)state;
    fixture f;
    cca_forecaster *forecast =
        open_forecast(&f, &(cca_random_shape){64, 3, 4, 2, 96, 64, 5}, 0, CHUNK);
    time_attention(forecast, CCA_ATTN_CCA, CCA_BF16, CHUNK);
    double a = more(forecast, MOST), token = cca_forecast_decode(forecast, MOST);
    assert_true(isfinite(a) && a > 0 && isfinite(token) && token > 0);
    cca_forecast_free(forecast);
    close_fixture(&f);
}

static void engine_forecasts(void **state) {
    (void)state;
    fixture f;
    cca_error err;
    cca_engine *engine;
    open_fixture(&f, &(cca_random_shape){32, 2, 4, 2, 64, 100, 5});
    cca_engine_options eo = {.device = "cpu", .n_threads = 2, .plan_only = true};
    if (cca_engine_open(&engine, f.path, &eo, &err) != CCA_OK) fail_msg("%s", err.text);
    assert_true(cca_engine_room(engine) > 0 && cca_engine_room(engine) < INT64_MAX);
    cca_session_options o[2] = {cca_session_defaults(), cca_session_defaults()};
    cca_forecast forecast[2] = {{0, 0}, {0, 0}};
    o[0].ctx_size = o[1].ctx_size = 300;
    o[1].attn = "full";
    if (cca_engine_forecast(forecast, engine, o, 2, 300, &err) != CCA_OK) fail_msg("%s", err.text);
    for (int i = 0; i < 2; i++) assert_true(forecast[i].prefill_s > 0 && forecast[i].token_s > 0);
    o[1].attn = "half";
    assert_int_equal(cca_engine_forecast(forecast, engine, o, 2, 300, &err), CCA_USAGE);
    volatile sig_atomic_t stop = 1;
    o[0].stop = &stop;
    assert_int_equal(cca_engine_forecast(forecast, engine, o, 1, 300, &err), CCA_INTERRUPTED);
    cca_engine_close(engine);
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums),
        cmocka_unit_test(parts_stand_for_all),
        cmocka_unit_test(whole_layers),
        cmocka_unit_test(engine_forecasts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
