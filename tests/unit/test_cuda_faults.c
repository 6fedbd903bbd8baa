/* What becomes of faults of a GPU: launches that fail, kernels that end the device's context,
 * memory that is not there, a device that does not answer. Nothing hangs, the first failure is
 * told, and a session on disk stays good. Where a process cannot use the device afterwards, it is
 * one of its own: this program with the fault's name. Skipped where there is no device.
 *
 *     test_cuda_faults                # all of it
 *     test_cuda_faults allocations    # one of them, in this process */
#include "engine_parts.h"
#include "tests/unit/cuda_pairs.h"
#include "tests/unit/recall_models.h"

#include <sys/wait.h>
#include <unistd.h>

static const char ILLEGAL[] = ": an illegal memory access was encountered\n";

/* ---- processes of their own ------------------------------------------------------------ */

enum { TEXT = 1024, MOST_SECONDS = 60 };

/* Runs this program with a fault and an operand; its exit code, or -1 where it was killed, as it is
 * if it hangs. What it wrote goes to text. */
static int run_child(char text[TEXT], const char *fault, const char *operand) {
    int pipes[2], how;
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        alarm(MOST_SECONDS);
        execl("/proc/self/exe", "test_cuda_faults", fault, operand, (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    size_t n = 0;
    for (ssize_t some = 1; some > 0 && n < TEXT - 1; n += (size_t)some) {
        some = read(pipes[0], text + n, TEXT - 1 - n);
        if (some < 0) some = 0;
    }
    text[n] = '\0';
    close(pipes[0]);
    assert_int_equal(waitpid(child, &how, 0), child);
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

static void check_child(const char *fault, const char *operand, int code, const char *message) {
    char text[TEXT];
    int got = run_child(text, fault, operand);
    if (got != code || !strstr(text, message)) {
        fail_msg("%s: exit code %d (-1: killed), and it says '%s'", fault, got, text);
    }
}

static cca_backend *open_gpu(const cca_cuda_forms *with, const volatile sig_atomic_t *stop) {
    cca_backend_options options = {.stop = stop};
    cca_error err;
    cca_backend *b;
    if (cca_backend_cuda_with(&b, 0, &options, with, &err) != CCA_OK) fail_msg("%s", err.text);
    return b;
}

/* Reads far behind the end of a table: the kernel is ended, and with it all that the process has on
 * the device. */
static void trap(cca_backend *b) {
    const int32_t far = 1 << 28;
    cca_matrix table, out;
    cca_matrix_alloc(b, &table, CCA_F32, 4, 1024);
    cca_matrix_alloc(b, &out, CCA_F32, 1, 1024);
    table.rows = (int64_t)far + 1; /* it says */
    cca_embed(b, &out, &table, &far, 1, 1);
    cca_matrix_free(b, &table);
    cca_matrix_free(b, &out);
}

/* ---- kernels ------------------------------------------------------------------------- */

/* The first failure stays, whatever is tried afterwards, and all of it can be given back. */
static int child_traps(void) {
    cca_cuda_forms all = cca_cuda_all_forms();
    cca_backend *b = open_gpu(&all, NULL), *other = open_gpu(&all, NULL);
    cca_matrix x, y, of_other;
    cca_error first, err;
    float values[64];
    cca_matrix_alloc(b, &x, CCA_F32, 8, 64);
    cca_matrix_alloc(other, &of_other, CCA_F32, 8, 64);
    assert_int_equal(cca_backend_sync(b, &first), CCA_OK);
    trap(b);
    cca_status status = cca_backend_sync(b, &first);
    cca_matrix_alloc(b, &y, CCA_F32, 8, 64);
    assert_null(y.data);
    cca_swiglu(b, &x, &x, 8);
    cca_matrix_download(b, values, &x, 1);
    assert_int_equal(cca_backend_sync(b, &err), status);
    assert_string_equal(err.text, first.text);
    cca_matrix_download(other, values, &of_other, 1);
    assert_int_equal(cca_backend_sync(other, &err), CCA_RUNTIME);
    cca_matrix_free(b, &x);
    cca_matrix_free(other, &of_other);
    cca_backend_close(b);
    cca_backend_close(other);
    assert_int_not_equal(cca_backend_cuda(&b, 0, &(cca_backend_options){0}, &err), CCA_OK);
    printf("%s\n", first.text);
    return (int)status;
}

static void kernels_that_trap(void **state) {
    (void)state;
    if (!gpu) skip();
    check_child("traps", NULL, CCA_RUNTIME, ILLEGAL);
}

/* A grid that no GPU has. The device goes on. */
static void launches_that_fail(void **state) {
    (void)state;
    if (!gpu) skip();
    cca_cuda_forms all = cca_cuda_all_forms();
    cca_backend *b = open_gpu(&all, NULL);
    enum { HEADS = 600000, WIDTH = 32 };
    cca_rows rows = {.k_type = CCA_F16, .v_type = CCA_F16};
    rows.heads = HEADS, rows.head_dim = WIDTH, rows.capacity = 1;
    rows.k = cca_backend_alloc(b, HEADS * WIDTH * sizeof(uint16_t));
    rows.v = cca_backend_alloc(b, HEADS * WIDTH * sizeof(uint16_t));
    cca_matrix x;
    cca_error err;
    cca_matrix_alloc(b, &x, CCA_F32, 1, HEADS * WIDTH);
    assert_int_equal(cca_backend_sync(b, &err), CCA_OK);
    cca_rows_store(b, &rows, &x, &x, 0, 1);
    assert_int_equal(cca_backend_report(b, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "cuda:0: store: "));
    cca_swiglu(b, &x, &x, 1);
    assert_int_equal(cca_backend_sync(b, &err), CCA_RUNTIME);
    assert_non_null(strstr(err.text, "cuda:0: store: "));
    cca_backend_release(b, rows.k);
    cca_backend_release(b, rows.v);
    cca_matrix_free(b, &x);
    cca_backend_close(b);
    pair y = random_pair(2, 64, 1), out = random_pair(2, 64, 1);
    cca_swiglu(plain, &out.host, &y.host, 2);
    cca_swiglu(gpu, &out.device, &y.device, 2);
    compare(&out, 1e-6, "another backend");
    free_pair(&y), free_pair(&out);
}

/* ---- a device that does not answer ----------------------------------------------------- */

/* A kernel of minutes stands for one that never ends. */
static int child_is_slow(void) {
    enum { N = 1 << 15, N_KEYS = 1 << 20, WIDTH = 128, HEADS = 64 };
    volatile sig_atomic_t stop = 0;
    cca_cuda_forms impatient = cca_cuda_all_forms();
    impatient.patience = 0;
    cca_backend *b = open_gpu(&impatient, &stop);
    cca_rule rule = {1, INT64_MAX / 4, 0, false};
    cca_rows rows = {.k_type = CCA_F32, .v_type = CCA_F32};
    rows.heads = 1, rows.head_dim = WIDTH, rows.capacity = N_KEYS;
    rows.k = cca_backend_alloc(b, (size_t)N_KEYS * WIDTH * sizeof(float));
    rows.v = cca_backend_alloc(b, (size_t)N_KEYS * WIDTH * sizeof(float));
    cca_spans spans = spans_of(&rule, rows, rows, rows);
    cca_matrix q, out;
    float values[WIDTH * HEADS];
    cca_error err, again;
    cca_matrix_alloc(b, &q, CCA_F32, N, WIDTH * HEADS);
    cca_matrix_alloc(b, &out, CCA_F32, N, WIDTH * HEADS);
    assert_int_equal(cca_backend_sync(b, &err), CCA_OK);
    cca_attend(b, &out, &spans, &q, N_KEYS - N, N);
    stop = 1;
    cca_swiglu(b, &q, &q, 1); /* is refused: an interruption, that the device has no part in */
    cca_status status = cca_backend_sync(b, &err);
    cca_matrix_download(b, values, &out, 1);
    assert_int_equal(cca_backend_sync(b, &again), status);
    assert_string_equal(again.text, err.text);
    cca_matrix_free(b, &q);
    cca_matrix_free(b, &out);
    cca_backend_release(b, rows.k);
    cca_backend_release(b, rows.v);
    cca_backend_close(b);
    printf("%s\n", err.text);
    return (int)status;
}

static void devices_that_do_not_answer(void **state) {
    (void)state;
    if (!gpu) skip();
    check_child("is-slow", NULL, CCA_RUNTIME,
                "cuda:0: has not answered for 0 seconds since it was to stop\n");
}

/* ---- memory -------------------------------------------------------------------------- */

/* A model from its weights to logits, of many tokens and of one; the failing-th allocation of the
 * device's memory fails. */
static cca_status run_model(const subject *x, int failing, cca_error *err) {
    const golden *m = &x->m;
    cca_cuda_forms all = cca_cuda_all_forms();
    all.failing = failing;
    cca_backend_options options = {0};
    cca_state_options o = {
        .ctx_size = CTX, .chunk_size = CTX, .k_type = CCA_F32, .v_type = CCA_F32};
    cca_policy_options p = {.attn = CCA_ATTN_CCA, .group_size = m->g, .window_size = m->s};
    p.n_sinks = m->sinks, p.recall = m->recall, p.tile = m->tile;
    cca_backend *b = NULL;
    cca_model *model = NULL;
    cca_state *state = NULL;
    float *logits = floats(x->vocab);
    cca_status status = cca_policy_make(&o.policy, &p, err);
    if (!status) status = cca_backend_cuda_with(&b, 0, &options, &all, err);
    if (!status) status = cca_model_open(&model, cca_engine_file(x->engine), b, err);
    if (!status) status = cca_state_new(&state, model, b, &o, err);
    for (int64_t pos = 0, n = m->length - 2; !status && pos < m->length; pos += n, n = 1) {
        status = cca_model_forward(state, m->tokens + pos, n, pos, err);
        if (!status) status = cca_model_logits(state, n - 1, 1, logits, err);
    }
    cca_state_free(state);
    cca_model_close(model);
    cca_backend_close(b);
    free(logits);
    return status;
}

/* Each allocation in turn; their number. */
static int fail_each(const subject *x) {
    for (int i = 1;; i++) {
        cca_error err;
        cca_status status = run_model(x, i, &err);
        if (!status) return i - 1;
        if (status != CCA_NO_MEMORY || !strstr(err.text, "cuda:0: no memory for ")) {
            fail_msg("allocation %d: status %d, %s", i, (int)status, err.text);
        }
    }
}

/* The second time nothing is left that the first one had to load. */
static void allocations_that_fail(void **state) {
    (void)state;
    if (!gpu) skip();
    subject x = {.m = read_golden("gqa2-wide"),
                 .engine = test_export_and_open(RECALL_MODELS, "gqa2-wide", CCA_Q8_0, 1)};
    x.vocab = cca_engine_info(x.engine)->vocab_size;
    int n = fail_each(&x);
    size_t before = cca_backend_room(gpu);
    assert_true(n > 20);
    assert_int_equal(fail_each(&x), n);
    assert_true(cca_backend_room(gpu) + (1 << 20) > before);
    close_subject(&x);
}

/* ---- sessions ------------------------------------------------------------------------ */

static int64_t half_of(const subject *x) {
    return x->m.length / 2 / 64 * 64;
}

/* Writes a checkpoint in the middle, then its device traps under the second half. */
static int child_of_session(const char *path) {
    subject x = open_subject("gqa2-wide", 1, "cuda");
    cca_error err, later;
    stored s = open_stored(x.engine, &x, path);
    if (extend_stored(&s, &x, half_of(&x), NULL, &err) != CCA_OK) fail_msg("%s", err.text);
    trap(s.session->backend);
    cca_status status = extend_stored(&s, &x, x.m.length, NULL, &err);
    assert_int_not_equal(cca_session_save(s.session, s.store, x.m.tokens, &later), CCA_OK);
    close_stored(&s);
    close_subject(&x);
    printf("%s\n", err.text);
    return (int)status;
}

/* Each segment has its checksum. */
static void check_whole(const char *path) {
    cca_store *store;
    cca_error err;
    assert_int_equal(cca_store_open(&store, path, false, &err), CCA_OK);
    assert_int_equal(cca_store_n_points(store), 1);
    assert_int_equal(cca_store_torn_bytes(store), 0);
    for (size_t i = 0; i < cca_store_n_segments(store); i++) {
        uint64_t bytes = cca_store_segment_at(store, i).bytes;
        void *data = memory(bytes);
        assert_int_equal(cca_store_read_begin(store, i, &err), CCA_OK);
        assert_int_equal(cca_store_read(store, data, bytes, &err), CCA_OK);
        free(data);
    }
    cca_store_close(store);
}

static void no_file(char *path) {
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file), unlink(path);
}

/* What goes on from the checkpoint comes to the bits of what was never stopped. */
static void sessions_that_go_on(void **state) {
    (void)state;
    if (!gpu) skip();
    char path[] = "/tmp/cca-test-fault-XXXXXX", other[] = "/tmp/cca-test-fault-XXXXXX";
    no_file(path), no_file(other);
    check_child("session", path, CCA_RUNTIME, ILLEGAL);
    check_whole(path);
    subject x = open_subject("gqa2-wide", 1, "cuda");
    float *want = memory(logit_bytes(&x, x.m.length)), *got = memory(logit_bytes(&x, x.m.length));
    collector whole = {want, x.vocab}, resumed = {got, x.vocab};
    eval_stored(x.engine, &x, other, half_of(&x), &whole);
    eval_stored(x.engine, &x, other, x.m.length, &whole);
    eval_stored(x.engine, &x, path, x.m.length, &resumed);
    int64_t half = half_of(&x) * x.vocab;
    assert_memory_equal(got + half, want + half, logit_bytes(&x, x.m.length - half_of(&x)));
    free(want), free(got), close_subject(&x);
    unlink(path), unlink(other);
}

int main(int argc, char **argv) {
    const char *fault = argc > 1 ? argv[1] : "";
    if (strcmp(fault, "traps") == 0) return child_traps();
    if (strcmp(fault, "is-slow") == 0) return child_is_slow();
    if (strcmp(fault, "session") == 0) return child_of_session(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_that_fail),      cmocka_unit_test(launches_that_fail),
        cmocka_unit_test(kernels_that_trap),          cmocka_unit_test(sessions_that_go_on),
        cmocka_unit_test(devices_that_do_not_answer),
    };
    if (strcmp(fault, "allocations") == 0) {
        return _cmocka_run_group_tests("allocations", tests, 1, open_backends, close_backends);
    }
    return cmocka_run_group_tests(tests, open_backends, close_backends);
}
