/* A few threads that help the calling one with independent pieces of work.
 *
 *     static void square(void *context, int64_t piece, int thread) { ... }
 *
 *     cca_workers *w = cca_workers_new(4);             // this thread and three more
 *     cca_workers_run(w, n_pieces, square, &context);  // returns when all pieces are done
 *     cca_workers_free(w);
 *
 * Pieces are handed out one by one, and the caller takes part: it waits for pieces that
 * another thread has begun, never for a thread that has not. So a helper that the system lets
 * wait costs nothing but its help, where a barrier would stop everybody: on a busy machine that
 * is the difference between a little slower and many times slower. Helpers without work spin
 * for some microseconds, since the next operation of a forward pass follows at once, then sleep.
 * The helpers are a team of OpenMP's threads (base/team.h). */
#ifndef CCA_WORKERS_H
#define CCA_WORKERS_H

#include <stdint.h>

/* More are no use to anybody. */
enum { CCA_MOST_THREADS = 1024 };

typedef struct cca_workers cca_workers;

/* thread: 0 for the caller, 1 … n_threads - 1 for helpers; at most one piece at a time has it. */
typedef void (*cca_piece_fn)(void *context, int64_t piece, int thread);

/* n_threads ≥ 1. Helpers are started by the first run that has work for them; where the system
 * gives fewer, those do. A child of fork has none of them, and its runs are done by the caller.
 * NULL without memory. */
cca_workers *cca_workers_new(int n_threads);
void cca_workers_free(cca_workers *workers);

int cca_workers_count(const cca_workers *workers);

/* Calls fn for pieces 0 … n_pieces - 1 < 2^31, in any order, on any thread. Not to be called from
 * two threads at a time, nor from a piece. */
void cca_workers_run(cca_workers *workers, int64_t n_pieces, cca_piece_fn fn, void *context);

#endif
