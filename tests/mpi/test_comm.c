/* Messages between ranks, any number of them. */
#include "tests/mpi/ranks.h"

static cca_comm *ranks(void **state) {
    return *state;
}

/* A byte that only one message has at a place. */
static uint8_t byte_of(int from, int to, size_t i) {
    return (uint8_t)(31 * from + 7 * to + 13 * (int)(i % 251) + 1);
}

static size_t size_of(int from, int to) {
    return 1000 * (size_t)(from + 1) + 10 * (size_t)to;
}

static uint8_t *filled(int from, int to, size_t n) {
    uint8_t *data = malloc(n + 1);
    assert_non_null(data);
    for (size_t i = 0; i < n; i++) data[i] = byte_of(from, to, i);
    return data;
}

static void check(const uint8_t *data, int from, int to, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (data[i] != byte_of(from, to, i)) fail_msg("%d to %d: byte %zu", from, to, i);
    }
}

/* ---- exchange ------------------------------------------------------------------------ */

enum { MOST = 16 };

/* Messages of sizes of their own from each rank to each other. */
typedef struct traffic {
    cca_mail out[MOST], in[MOST];
    int n;
    cca_exchange *exchange;
} traffic;

static traffic begin_traffic(cca_comm *comm, size_t times) {
    int own = cca_comm_rank(comm), n = cca_comm_n_ranks(comm);
    cca_error err;
    traffic t = {.n = 0};
    for (int i = 0; i < n; i++) {
        if (i == own) continue;
        size_t out = times * size_of(own, i), in = times * size_of(i, own);
        t.out[t.n] = (cca_mail){i, filled(own, i, out), out};
        t.in[t.n++] = (cca_mail){i, calloc(in, 1), in};
    }
    assert_int_equal(cca_comm_begin(&t.exchange, comm, t.out, t.n, t.in, t.n, &err), CCA_OK);
    return t;
}

static void end_traffic(traffic *t, int own) {
    cca_error err;
    assert_int_equal(cca_comm_finish(t->exchange, &err), CCA_OK);
    for (int i = 0; i < t->n; i++) {
        check(t->in[i].data, t->in[i].rank, own, t->in[i].bytes);
        free(t->in[i].data), free(t->out[i].data);
    }
}

static void each_rank_hears_each_other(void **state) {
    cca_comm *comm = ranks(state);
    uint64_t before = cca_comm_counted(comm).sent_bytes, sent = 0;
    traffic t = begin_traffic(comm, 1);
    for (int i = 0; i < t.n; i++) sent += t.out[i].bytes;
    assert_int_equal(t.n, cca_comm_n_ranks(comm) - 1);
    end_traffic(&t, cca_comm_rank(comm));
    assert_int_equal(cca_comm_counted(comm).sent_bytes - before, sent);
}

static void exchanges_under_way_do_not_mix(void **state) {
    cca_comm *comm = ranks(state);
    traffic small = begin_traffic(comm, 1), large = begin_traffic(comm, 1000);
    for (int i = 0; i < 100; i++) cca_comm_progress(large.exchange);
    traffic next = begin_traffic(comm, 3);
    end_traffic(&large, cca_comm_rank(comm));
    end_traffic(&next, cca_comm_rank(comm));
    end_traffic(&small, cca_comm_rank(comm));
}

static void an_exchange_of_nothing_is_done(void **state) {
    cca_exchange *exchange;
    cca_error err;
    assert_int_equal(cca_comm_begin(&exchange, ranks(state), NULL, 0, NULL, 0, &err), CCA_OK);
    assert_int_equal(cca_comm_finish(exchange, &err), CCA_OK);
    assert_int_equal(cca_comm_finish(NULL, &err), CCA_OK);
}

/* ---- all ranks ----------------------------------------------------------------------- */

static void everybody_has_what_rank_0_had(void **state) {
    cca_comm *comm = ranks(state);
    enum { N = 100000 };
    cca_error err;
    uint8_t *data = filled(cca_comm_rank(comm), 0, N);
    assert_int_equal(cca_comm_broadcast(comm, data, N, &err), CCA_OK);
    check(data, 0, 0, N);
    free(data);
}

static void who_listens_hears_the_next_broadcast(void **state) {
    cca_comm *comm = ranks(state);
    cca_error err;
    int64_t word = cca_comm_rank(comm) == 0 ? 48213 : 0;
    double waited = cca_comm_counted(comm).waited_s;
    if (cca_comm_rank(comm) == 0) {
        usleep(100000);
        assert_int_equal(cca_comm_broadcast(comm, &word, sizeof word, &err), CCA_OK);
    } else {
        assert_int_equal(cca_comm_listen(comm, &word, sizeof word, &err), CCA_OK);
        assert_true(cca_comm_counted(comm).waited_s == waited);
    }
    assert_int_equal(word, 48213);
}

/* Some have nothing. */
static void parts_of_all_lie_one_behind_the_other(void **state) {
    cca_comm *comm = ranks(state);
    int own = cca_comm_rank(comm), n = cca_comm_n_ranks(comm);
    size_t bytes[MOST], at = 0, begins[MOST];
    cca_error err;
    for (int i = 0; i < n; i++) {
        bytes[i] = i % 3 == 1 ? 0 : 100 + 900 * (size_t)i;
        begins[i] = at;
        at += bytes[i];
    }
    uint8_t *all = calloc(at + 1, 1), *part = filled(own, 3, bytes[own]);
    assert_non_null(all);
    memcpy(all + begins[own], part, bytes[own]);
    assert_int_equal(cca_comm_gather(comm, all, bytes, &err), CCA_OK);
    for (int i = 0; i < n; i++) check(all + begins[i], i, 3, bytes[i]);
    free(all), free(part);
}

static void the_largest_of_each_value_is_told(void **state) {
    cca_comm *comm = ranks(state);
    int64_t own = cca_comm_rank(comm), n = cca_comm_n_ranks(comm);
    int64_t values[] = {own, -own, own == n / 2 ? INT64_MAX : INT64_MIN};
    cca_error err;
    assert_int_equal(cca_comm_largest(comm, values, 3, &err), CCA_OK);
    assert_true(values[0] == n - 1 && values[1] == 0 && values[2] == INT64_MAX);
}

/* Whoever comes late is waited for, without taking a processor. */
static void a_barrier_waits_asleep(void **state) {
    cca_comm *comm = ranks(state);
    cca_error err;
    assert_int_equal(cca_comm_barrier(comm, &err), CCA_OK);
    double waited = cca_comm_counted(comm).waited_s, cpu = cca_cpu_seconds();
    bool late = cca_comm_rank(comm) == 0 && cca_comm_n_ranks(comm) > 1;
    if (late) usleep(500000);
    assert_int_equal(cca_comm_barrier(comm, &err), CCA_OK);
    if (cca_comm_rank(comm) > 0) assert_true(cca_comm_counted(comm).waited_s - waited > 0.3);
    test_below(cca_cpu_seconds() - cpu, 0.25, "seconds of a processor in 0.5 s of waiting");
}

/* Tests run on one machine. */
static void all_know_where_the_others_are(void **state) {
    cca_comm *comm = ranks(state);
    for (int r = 0; r < cca_comm_n_ranks(comm); r++) {
        const cca_comm_seat seat = cca_comm_seat_of(comm, r);
        assert_int_equal(seat.machine, 0);
        assert_true(seat.available > 1 << 20);
    }
    assert_int_equal(cca_comm_local_rank(comm), cca_comm_rank(comm));
}

int main(void) {
    cca_comm *comm = ranks_open();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(each_rank_hears_each_other, comm),
        cmocka_unit_test_prestate(exchanges_under_way_do_not_mix, comm),
        cmocka_unit_test_prestate(an_exchange_of_nothing_is_done, comm),
        cmocka_unit_test_prestate(everybody_has_what_rank_0_had, comm),
        cmocka_unit_test_prestate(who_listens_hears_the_next_broadcast, comm),
        cmocka_unit_test_prestate(parts_of_all_lie_one_behind_the_other, comm),
        cmocka_unit_test_prestate(the_largest_of_each_value_is_told, comm),
        cmocka_unit_test_prestate(a_barrier_waits_asleep, comm),
        cmocka_unit_test_prestate(all_know_where_the_others_are, comm),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cca_comm_close(comm);
    return failed;
}
