#include "base/workers.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* Turns of a waiting loop: for a helper before it sleeps (about 50 microseconds), for the caller
 * before it lets others run. */
enum { SPIN_TURNS = 1500, YIELD_TURNS = 200 };

typedef struct helper {
    cca_workers *workers;
    pthread_t thread;
    int index;
} helper;

/* A thread's share of the pieces, on a cache line of its own. */
typedef struct share {
    _Alignas(64) _Atomic int64_t next; /* piece */
    int64_t end;
} share;

/* A job is open while its fields may be read. A helper first counts itself in, then looks
 * whether a job is open; the caller first closes the job, then waits until nobody is counted in,
 * and only then writes the next one's fields. All these are sequentially consistent. */
struct cca_workers {
    int n_threads, n_helpers;
    helper *helpers;
    share *shares; /* one a thread */
    bool started;

    cca_piece_fn fn;
    void *context;
    atomic_bool open;
    atomic_int inside; /* helpers counted in */

    atomic_uint generation; /* of jobs; a change wakes */
    atomic_int sleepers;
    atomic_bool quit;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
};

static inline void pause_briefly(void) {
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

/* A thread's own share first, then what is left of the others'. */
static void take_pieces(cca_workers *w, int thread) {
    for (int i = 0; i < w->n_threads; i++) {
        share *s = &w->shares[(thread + i) % w->n_threads];
        for (;;) {
            int64_t piece = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
            if (piece >= s->end) break;
            w->fn(w->context, piece, thread);
        }
    }
}

/* Returns when there is a generation other than the one seen, which is then the one seen. */
static void wait_for_job(cca_workers *w, unsigned *seen) {
    for (int turn = 0; turn < SPIN_TURNS; turn++) {
        unsigned now = atomic_load(&w->generation);
        if (now != *seen) {
            *seen = now;
            return;
        }
        pause_briefly();
    }
    pthread_mutex_lock(&w->mutex);
    atomic_fetch_add(&w->sleepers, 1);
    while (atomic_load(&w->generation) == *seen) pthread_cond_wait(&w->wake, &w->mutex);
    atomic_fetch_sub(&w->sleepers, 1);
    *seen = atomic_load(&w->generation);
    pthread_mutex_unlock(&w->mutex);
}

static void *help(void *argument) {
    helper *self = argument;
    cca_workers *w = self->workers;
    unsigned seen = 0;
    for (;;) {
        wait_for_job(w, &seen);
        if (atomic_load(&w->quit)) return NULL;
        atomic_fetch_add(&w->inside, 1);
        if (atomic_load(&w->open)) take_pieces(w, self->index);
        atomic_fetch_sub(&w->inside, 1);
    }
}

static void announce(cca_workers *w) {
    atomic_fetch_add(&w->generation, 1);
    if (atomic_load(&w->sleepers) == 0) return;
    pthread_mutex_lock(&w->mutex);
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->mutex);
}

/* Signals are the calling program's business: helpers get none but those that they raise. */
static void start_helpers(cca_workers *w) {
    static const int raised[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL};
    sigset_t all, before;
    w->started = true;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof raised / sizeof *raised; i++) sigdelset(&all, raised[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < w->n_threads - 1; i++) {
        w->helpers[i] = (helper){.workers = w, .index = i + 1};
        if (pthread_create(&w->helpers[i].thread, NULL, help, &w->helpers[i]) != 0) break;
        w->n_helpers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

cca_workers *cca_workers_new(int n_threads) {
    cca_workers *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->n_threads = n_threads;
    w->helpers = calloc((size_t)n_threads, sizeof *w->helpers);
    w->shares = aligned_alloc(_Alignof(share), (size_t)n_threads * sizeof *w->shares);
    if (!w->helpers || !w->shares) {
        free(w->shares);
        free(w->helpers);
        free(w);
        return NULL;
    }
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->wake, NULL);
    return w;
}

void cca_workers_free(cca_workers *w) {
    if (!w) return;
    atomic_store(&w->quit, true);
    announce(w);
    for (int i = 0; i < w->n_helpers; i++) pthread_join(w->helpers[i].thread, NULL);
    pthread_mutex_destroy(&w->mutex);
    pthread_cond_destroy(&w->wake);
    free(w->shares);
    free(w->helpers);
    free(w);
}

int cca_workers_count(const cca_workers *workers) {
    return workers->n_threads;
}

void cca_workers_run(cca_workers *w, int64_t n_pieces, cca_piece_fn fn, void *context) {
    w->fn = fn;
    w->context = context;
    if (n_pieces <= 1 || w->n_threads == 1) {
        for (int64_t piece = 0; piece < n_pieces; piece++) fn(context, piece, 0);
        return;
    }
    for (int i = 0; i < w->n_threads; i++) {
        share *s = &w->shares[i];
        atomic_store_explicit(&s->next, n_pieces * i / w->n_threads, memory_order_relaxed);
        s->end = n_pieces * (i + 1) / w->n_threads;
    }
    if (!w->started) start_helpers(w);
    atomic_store(&w->open, true);
    announce(w);
    take_pieces(w, 0);
    atomic_store(&w->open, false);
    for (int turn = 0; atomic_load(&w->inside) > 0; turn++) {
        if (turn < YIELD_TURNS) {
            pause_briefly();
        } else {
            sched_yield();
        }
    }
}
