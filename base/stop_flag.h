/* A flag that a signal handler or another thread sets, and that several threads look at.
 *
 *     static volatile sig_atomic_t stop;
 *     cca_stop_set(&stop, SIGINT);                 // also in a handler
 *     if (cca_stop_asked(&stop)) ...               // in any thread; NULL is never set
 *
 * Looks and sets are atomic and order nothing else. A handler that writes the flag by itself, with
 * a plain assignment, does the same on all machines that this builds for. */
#ifndef CCA_STOP_FLAG_H
#define CCA_STOP_FLAG_H

#include <signal.h>
#include <stddef.h>

/* 0, or what the flag was set to. */
static inline int cca_stop_asked(const volatile sig_atomic_t *stop) {
    return stop == NULL ? 0 : __atomic_load_n(stop, __ATOMIC_RELAXED);
}

static inline void cca_stop_set(volatile sig_atomic_t *stop, int value) {
    __atomic_store_n(stop, value, __ATOMIC_RELAXED);
}

#endif
