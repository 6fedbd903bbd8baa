/* Threads that the calling one has beside itself, each in one function until that returns.
 *
 *     static void serve(void *context, int member) { ... }   // until told to return
 *
 *     cca_team *t = cca_team_start(4, serve, &context);       // serve for members 1, 2 and 3
 *     n = cca_team_size(t);                                   // 4, or fewer
 *     ...                                                     // tell them to return
 *     cca_team_join(t);
 *
 * They are OpenMP's where the program is built with it: those of one parallel region, of which one
 * sleeps in place of the caller, so that OMP_PLACES and OMP_PROC_BIND place them, and
 * OMP_THREAD_LIMIT and OMP_DYNAMIC bound them. Otherwise they are POSIX threads. */
#ifndef CCA_TEAM_H
#define CCA_TEAM_H

#include <sched.h>

typedef struct cca_team cca_team;

typedef void (*cca_member_fn)(void *context, int member);

/* n ≥ 1 members, of whom the caller is one. NULL where the system gives no threads. */
cca_team *cca_team_start(int n, cca_member_fn fn, void *context);
/* From 1 to n. */
int cca_team_size(const cca_team *team);
/* Waits until fn has returned on all members; in a child of fork, which has none of them, for
 * nothing. NULL is nothing. */
void cca_team_join(cca_team *team);

/* The most threads that OpenMP is to use, where nobody says another number: OMP_NUM_THREADS or
 * omp_set_num_threads, else one a processor, and OMP_THREAD_LIMIT. 0 without OpenMP. */
int cca_team_most(void);
/* The CPUs that threads may run on: OpenMP's places where there are some, else this thread's
 * affinity. An empty set where the system does not say. */
void cca_team_cpus(cpu_set_t *out);

#endif
