#include "base/team.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

struct cca_team {
    int n, n_threads; /* members; threads to join */
    int place;        /* of OpenMP's, where the caller is; -1: none */
    cca_member_fn fn;
    void *context;
    pid_t process;
    sem_t counted, over; /* n is what it stays; the region may end */
    struct seat {
        cca_team *team;
        pthread_t thread;
        int member;
    } seats[];
};

#ifdef _OPENMP

/* The region belongs to a thread of its own, since it lasts from call to call of the caller; who is
 * at the caller's place in it sleeps. Behind it OpenMP would keep the members for this thread's
 * next region; pausing lets them end. */
static void *host(void *argument) {
    cca_team *t = ((struct seat *)argument)->team;
    int sleeper = 0;
#pragma omp parallel num_threads(t->n)
    {
        int self = omp_get_thread_num();
        if (t->place >= 0 && omp_get_place_num() == t->place) {
#pragma omp atomic write
            sleeper = self;
        }
#pragma omp barrier
        if (self == sleeper) {
            t->n = omp_get_num_threads();
            sem_post(&t->counted);
            while (sem_wait(&t->over) != 0) continue;
        } else {
            t->fn(t->context, self ? self : sleeper);
        }
    }
    omp_pause_resource(omp_pause_soft, omp_get_initial_device());
    return NULL;
}

static void *wait_for_post(void *semaphore) {
    while (sem_wait(semaphore) != 0) continue;
    return NULL;
}

/* How many of n ≥ 1 threads the system gives. OpenMP's library ends the process where it is refused
 * one, so as many are tried first; where they are fewer only half are asked for, since those that
 * have just ended may count for a moment more. */
static int count_given(int n) {
    pthread_t *threads = malloc((size_t)n * sizeof *threads);
    int given = 0;
    sem_t over;
    if (!threads) return 1;
    sem_init(&over, 0, 0);
    while (given < n && pthread_create(&threads[given], NULL, wait_for_post, &over) == 0) given++;
    for (int i = 0; i < given; i++) sem_post(&over);
    for (int i = 0; i < given; i++) pthread_join(threads[i], NULL);
    sem_destroy(&over);
    free(threads);
    return given == n ? n : (given + 1) / 2;
}

static void start_threads(cca_team *t) {
    t->place = omp_get_place_num();
    t->n = count_given(t->n);
    if (t->n < 2) {
        t->n = 1;
        return;
    }
    if (pthread_create(&t->seats[0].thread, NULL, host, &t->seats[0]) == 0) {
        t->n_threads = 1;
        while (sem_wait(&t->counted) != 0) continue;
    } else {
        t->n = 1;
    }
}

int cca_team_most(void) {
    int most = omp_get_max_threads(), limit = omp_get_thread_limit();
    return most < limit ? most : limit;
}

static void add_place(cpu_set_t *out, int place) {
    int n = omp_get_place_num_procs(place), *ids = malloc((size_t)n * sizeof *ids);
    if (ids) omp_get_place_proc_ids(place, ids);
    for (int i = 0; ids && i < n; i++) {
        if (ids[i] < CPU_SETSIZE) CPU_SET(ids[i], out);
    }
    free(ids);
}

/* The thread itself is bound to the first of the places. */
void cca_team_cpus(cpu_set_t *out) {
    CPU_ZERO(out);
    for (int place = 0; place < omp_get_num_places(); place++) add_place(out, place);
    if (CPU_COUNT(out) > 0) return;
    if (sched_getaffinity(0, sizeof *out, out) != 0) CPU_ZERO(out);
}

#else

static void *sit(void *argument) {
    const struct seat *s = argument;
    s->team->fn(s->team->context, s->member);
    return NULL;
}

static void start_threads(cca_team *t) {
    for (; t->n_threads < t->n - 1; t->n_threads++) {
        struct seat *s = &t->seats[t->n_threads];
        s->member = t->n_threads + 1;
        if (pthread_create(&s->thread, NULL, sit, s) != 0) break;
    }
    t->n = t->n_threads + 1;
}

int cca_team_most(void) {
    return 0;
}

void cca_team_cpus(cpu_set_t *out) {
    if (sched_getaffinity(0, sizeof *out, out) != 0) CPU_ZERO(out);
}

#endif

/* Signals are the calling program's business: members get none but those that they raise. */
cca_team *cca_team_start(int n, cca_member_fn fn, void *context) {
    static const int raised[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL};
    sigset_t all, before;
    cca_team *t = calloc(1, sizeof *t + (size_t)n * sizeof *t->seats);
    if (!t) return NULL;
    t->n = n;
    t->fn = fn;
    t->context = context;
    t->process = getpid();
    for (int i = 0; i < n; i++) t->seats[i].team = t;
    sem_init(&t->counted, 0, 0);
    sem_init(&t->over, 0, 0);
    sigfillset(&all);
    for (size_t i = 0; i < sizeof raised / sizeof *raised; i++) sigdelset(&all, raised[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    start_threads(t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return t;
}

int cca_team_size(const cca_team *team) {
    return team->n;
}

void cca_team_join(cca_team *t) {
    if (!t) return;
    sem_post(&t->over);
    for (int i = 0; i < t->n_threads && t->process == getpid(); i++) {
        pthread_join(t->seats[i].thread, NULL);
    }
    sem_destroy(&t->over);
    sem_destroy(&t->counted);
    free(t);
}
