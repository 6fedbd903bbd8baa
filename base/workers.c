#include "base/workers.h"

#include "base/team.h"

#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Turns of a waiting loop: for a helper before it sleeps (about 50 microseconds), for the caller
 * before it lets others run. */
enum { SPIN_TURNS = 1500, YIELD_TURNS = 200 };

/* All that passes between the caller and one other thread, on cache lines of its own (processors
 * fetch them in pairs): the caller's writes are one line a helper to fetch, the helper's answer is
 * one line back.
 *
 * A share is the number of a job and how many of its pieces nobody has taken, in one word, so that
 * who lowers it has a piece of an open job, whose other fields then stay until that piece is done.
 * Without a piece nobody reads them: nobody waits for a thread that has none. */
typedef struct member {
    _Alignas(128) _Atomic uint64_t share; /* job << 32 | pieces left */
    int64_t end;                          /* the piece behind the share's last */
    cca_piece_fn fn;
    void *context;
    _Atomic int64_t done; /* pieces of all jobs; the caller's: less all that there were */
} member;

/* Read by all, written by the caller where a team begins, sleeps or ends. */

struct cca_workers {
    _Alignas(128) cca_team *team;
    member *members;          /* of whom the caller is the first */
    int n_threads, n_members; /* asked for; there, once the team has been started */
    atomic_bool quit, somebody_sleeps;
    atomic_uint alarm; /* a change wakes */
};

static inline void pause_briefly(void) {
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

static uint32_t left_of(uint64_t share) {
    return (uint32_t)share;
}

static uint32_t job_of(uint64_t share) {
    return (uint32_t)(share >> 32);
}

/* The member's own count, which others read. */
static void count_done(member *me, int64_t n) {
    int64_t done = atomic_load_explicit(&me->done, memory_order_relaxed);
    atomic_store_explicit(&me->done, done + n, memory_order_release);
}

/* A member's own share first, then what is left of the others'. */
static void take_pieces(cca_workers *w, int self) {
    member *me = &w->members[self];
    for (int i = 0; i < w->n_members; i++) {
        member *m = &w->members[(self + i) % w->n_members];
        uint64_t share = atomic_load_explicit(&m->share, memory_order_acquire);
        while (left_of(share) > 0) {
            if (!atomic_compare_exchange_weak(&m->share, &share, share - 1)) continue;
            m->fn(m->context, m->end - left_of(share), self);
            count_done(me, 1);
            share = atomic_load_explicit(&m->share, memory_order_acquire);
        }
    }
}

/* Until there may be a job other than the one seen. A helper says that it sleeps and then looks
 * again, the caller gives a job and then asks whether somebody sleeps. Whoever takes the word back
 * sounds the alarm. */
static void sleep_beside(cca_workers *w, member *me, uint32_t seen) {
    unsigned alarm = atomic_load(&w->alarm);
    atomic_store(&w->somebody_sleeps, true);
    if (job_of(atomic_load(&me->share)) != seen) return;
    syscall(SYS_futex, &w->alarm, FUTEX_WAIT_PRIVATE, alarm, NULL, NULL, 0);
}

static void wake_sleepers(cca_workers *w) {
    if (!atomic_load(&w->somebody_sleeps)) return;
    atomic_store(&w->somebody_sleeps, false);
    atomic_fetch_add(&w->alarm, 1);
    syscall(SYS_futex, &w->alarm, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* The next job's number, which is other than the one seen. */
static uint32_t wait_for_job(cca_workers *w, member *me, uint32_t seen) {
    for (int turn = 0;; turn++) {
        uint32_t job = job_of(atomic_load_explicit(&me->share, memory_order_acquire));
        if (job != seen) return job;
        if (turn < SPIN_TURNS) {
            pause_briefly();
        } else {
            sleep_beside(w, me, seen);
            turn = 0;
        }
    }
}

static void help(void *context, int self) {
    cca_workers *w = context;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_job(w, &w->members[self], seen);
        if (atomic_load(&w->quit)) return;
        take_pieces(w, self);
    }
}

static void *zeroed(size_t alignment, size_t bytes) {
    void *memory = aligned_alloc(alignment, bytes);
    return memory ? memset(memory, 0, bytes) : NULL;
}

cca_workers *cca_workers_new(int n_threads) {
    cca_workers *w = zeroed(_Alignof(cca_workers), sizeof *w);
    if (!w) return NULL;
    w->n_threads = n_threads;
    w->members = zeroed(_Alignof(member), (size_t)n_threads * sizeof *w->members);
    if (w->members) return w;
    free(w);
    return NULL;
}

int cca_workers_count(const cca_workers *workers) {
    return workers->n_threads;
}

/* Where the system gives no threads the caller does all. */
static void start_team(cca_workers *w) {
    w->team = cca_team_start(w->n_threads, help, w);
    w->n_members = w->team ? cca_team_size(w->team) : 1;
}

/* Opens a job of the first n members. The caller's own share comes first, so that a helper who is
 * through with its own finds it, even if the caller is held up in between; the last one comes in a
 * store that all have seen before the caller asks for sleepers. */
static void open_job(cca_workers *w, int n, int64_t n_pieces, cca_piece_fn fn, void *context) {
    uint64_t job = (uint64_t)(job_of(atomic_load(&w->members[0].share)) + 1) << 32;
    for (int i = 0; i < n; i++) {
        member *m = &w->members[i];
        m->end = n_pieces * (i + 1) / n;
        m->fn = fn;
        m->context = context;
        uint64_t share = job | (uint64_t)(m->end - n_pieces * i / n);
        bool last = i + 1 == n;
        atomic_store_explicit(&m->share, share, last ? memory_order_seq_cst : memory_order_release);
    }
    wake_sleepers(w);
}

static bool all_done(const cca_workers *w) {
    int64_t done = 0;
    for (int i = 0; i < w->n_members; i++) {
        done += atomic_load_explicit(&w->members[i].done, memory_order_acquire);
    }
    return done == 0;
}

void cca_workers_run(cca_workers *w, int64_t n_pieces, cca_piece_fn fn, void *context) {
    if (n_pieces <= 1 || w->n_threads == 1) {
        for (int64_t piece = 0; piece < n_pieces; piece++) fn(context, piece, 0);
        return;
    }
    if (w->n_members == 0) start_team(w);
    count_done(&w->members[0], -n_pieces);
    open_job(w, n_pieces < w->n_members ? (int)n_pieces : w->n_members, n_pieces, fn, context);
    take_pieces(w, 0);
    for (int turn = 0; !all_done(w); turn++) {
        if (turn < YIELD_TURNS) {
            pause_briefly();
        } else {
            sched_yield();
        }
    }
}

void cca_workers_free(cca_workers *w) {
    if (!w) return;
    atomic_store(&w->quit, true);
    if (w->team) open_job(w, w->n_members, 0, NULL, NULL);
    cca_team_join(w->team);
    free(w->members);
    free(w);
}
