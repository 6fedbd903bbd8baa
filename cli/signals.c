#include "cli/signals.h"

#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stop_signal;

static void on_stop(int number) {
    if (stop_signal) _exit(128 + number);
    stop_signal = number;
}

void signals_install(void) {
    struct sigaction action = {.sa_handler = on_stop}; /* no SA_RESTART: a read must end, too */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL); /* a file at its limit is a failed write */

    /* Blocked and asked for where a line can be printed, so it needs no handler. */
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, NULL);
}

const volatile sig_atomic_t *signals_stop(void) {
    return &stop_signal;
}

void signals_forget(void) {
    if (stop_signal == SIGINT) stop_signal = 0;
}

static void on_interrupt(int number) {
    if (!stop_signal) stop_signal = number;
}

void signals_outlive(void) {
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

bool signals_status_asked(void) {
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    return sigtimedwait(&usr1, NULL, &(struct timespec){0}) == SIGUSR1;
}
