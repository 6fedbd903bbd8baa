/* Messages between the memories of backends: of GPUs over NCCL, where CCA_TEST_DEVICE says cuda and
 * CCA_TEST_RANKS nccl, one rank a GPU; elsewhere that there are none. */
#include "backend/backend.h"
#include "tests/mpi/ranks.h"

enum { MOST = 16, N = 300000, ROUNDS = 20 };

/* A rank's backend, its communicator for that memory, and rows to and from each other rank. */
typedef struct subject {
    cca_comm *comm, *device;
    cca_backend *b;
    cca_matrix out[MOST], in[MOST], zero;
    cca_mail to[MOST], from[MOST];
    int n;
} subject;

static float value_of(int from, int to, int64_t i) {
    return (float)(from + 1) * 0.5F + (float)to * 0.25F + (float)(i % 977);
}

static void check_sync(subject *x) {
    cca_error err;
    if (cca_backend_sync(x->b, &err)) fail_msg("%s", err.text);
}

static subject open_subject(cca_comm *comm) {
    subject x = {.comm = comm};
    cca_error err;
    cca_backend_options o = {.n_threads = 1};
    int own = cca_comm_rank(comm);
    if (cca_backend_open(&x.b, ranks_device(comm), &o, &err)) fail_msg("%s", err.text);
    if (cca_comm_on_device(&x.device, comm, x.b, &err)) fail_msg("%s", err.text);
    cca_matrix_alloc(x.b, &x.zero, CCA_F32, 1, N);
    for (int i = 0; i < cca_comm_n_ranks(comm); i++) {
        if (i == own) continue;
        float *values = malloc(N * sizeof *values);
        assert_non_null(values);
        for (int64_t k = 0; k < N; k++) values[k] = value_of(own, i, k);
        cca_matrix_alloc(x.b, &x.out[x.n], CCA_F32, 1, N);
        cca_matrix_alloc(x.b, &x.in[x.n], CCA_F32, 1, N);
        check_sync(&x);
        cca_backend_upload(x.b, x.out[x.n].data, values, N * sizeof *values);
        x.to[x.n] = (cca_mail){i, x.out[x.n].data, N * sizeof *values};
        x.from[x.n] = (cca_mail){i, x.in[x.n].data, N * sizeof *values};
        x.n++;
        free(values);
    }
    check_sync(&x);
    return x;
}

static void close_subject(subject *x) {
    for (int i = 0; i < x->n; i++) {
        cca_matrix_free(x->b, &x->out[i]);
        cca_matrix_free(x->b, &x->in[i]);
    }
    cca_matrix_free(x->b, &x->zero);
    cca_backend_close(x->b);
}

/* What came, multiplied by what. */
static void check_in(subject *x, float times) {
    float *values = malloc(N * sizeof *values);
    assert_non_null(values);
    for (int i = 0; i < x->n; i++) {
        cca_matrix_download(x->b, values, &x->in[i], 1);
        check_sync(x);
        for (int64_t k = 0; k < N; k++) {
            float want = times * value_of(x->from[i].rank, cca_comm_rank(x->comm), k);
            if (values[k] == want) continue;
            fail_msg("%lld: %g, not %g", (long long)k, (double)values[k], (double)want);
        }
    }
    free(values);
}

/* On the CPU, and over MPI, memory is the host's, and there is no other communicator. */
static void memory_of_the_host_needs_no_other(void **state) {
    subject x = open_subject(*state);
    bool wanted = strcmp(ranks_setting("CCA_TEST_RANKS", "mpi"), "nccl") == 0 &&
                  strncmp(ranks_device(x.comm), "cuda", 4) == 0;
    assert_true((x.device != NULL) == wanted);
    close_subject(&x);
}

/* What is sent is what operations before have written, and operations behind see what came, without
 * the host waiting for either: each round doubles what is sent, and adds to what has come. */
static void exchanges_keep_the_order_of_operations(void **state) {
    subject x = open_subject(*state);
    cca_error err;
    float times = 1;
    for (int round = 0; x.device && round < ROUNDS; round++, times *= 2) {
        cca_exchange *exchange;
        for (int i = 0; i < x.n && round > 0; i++) cca_accumulate(x.b, &x.out[i], &x.out[i], 1);
        assert_int_equal(cca_comm_begin(&exchange, x.device, x.to, x.n, x.from, x.n, &err), CCA_OK);
        cca_comm_progress(exchange);
        assert_int_equal(cca_comm_finish(exchange, &err), CCA_OK);
        for (int i = 0; i < x.n; i++) cca_accumulate(x.b, &x.in[i], &x.zero, 1);
    }
    if (x.device) check_in(&x, times / 2);
    close_subject(&x);
}

/* Two are under way, whose messages do not mix; and bytes are counted. */
static void exchanges_under_way_do_not_mix(void **state) {
    subject x = open_subject(*state);
    cca_error err;
    cca_exchange *one = NULL, *other = NULL;
    uint64_t before = cca_comm_counted(x.comm).sent_bytes;
    if (x.device) {
        assert_int_equal(cca_comm_begin(&one, x.device, x.to, x.n, x.from, x.n, &err), CCA_OK);
        for (int i = 0; i < x.n; i++) cca_accumulate(x.b, &x.zero, &x.zero, 1);
        assert_int_equal(cca_comm_begin(&other, x.device, x.to, x.n, x.from, x.n, &err), CCA_OK);
        assert_int_equal(cca_comm_finish(one, &err), CCA_OK);
        assert_int_equal(cca_comm_finish(other, &err), CCA_OK);
        check_in(&x, 1);
        uint64_t sent = cca_comm_counted(x.comm).sent_bytes - before;
        assert_int_equal(sent, 2 * (uint64_t)x.n * N * sizeof(float));
        assert_true(cca_comm_counted(x.comm).waited_s >= 0);
    }
    close_subject(&x);
}

int main(void) {
    cca_comm *comm = ranks_open();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(memory_of_the_host_needs_no_other, comm),
        cmocka_unit_test_prestate(exchanges_keep_the_order_of_operations, comm),
        cmocka_unit_test_prestate(exchanges_under_way_do_not_mix, comm),
    };
    if (strcmp(ranks_device(comm), "cpu") == 0 && cca_comm_rank(comm) == 0) {
        fprintf(stderr, "skip: no GPU is tested\n");
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cca_comm_close(comm);
    return failed;
}
