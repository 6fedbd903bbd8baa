#include "cli/signals.h"

#include "base/base.h"
#include "base/mapping.h"
#include "base/stop_flag.h"
#include "base/whole_file.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stop_signal;

static void on_stop(int number) {
    if (cca_stop_asked(&stop_signal)) {
        cca_whole_abandon();
        _exit(128 + number);
    }
    cca_stop_set(&stop_signal, number);
}

/* Ends the process as it would have ended, but for what it would have left behind. */
static void on_end(int number) {
    cca_whole_abandon();
    signal(number, SIG_DFL);
    raise(number);
}

static void say(const char *text) {
    (void)!write(STDERR_FILENO, text, strlen(text));
}

/* Of several threads that find the same the first one tells. */
static void on_bus_error(int number, siginfo_t *info, void *context) {
    static atomic_flag told = ATOMIC_FLAG_INIT;
    char name[4096];
    (void)context;
    if (!cca_mapping_file_at(name, sizeof name, info->si_addr)) {
        on_end(number);
        return;
    }
    while (atomic_flag_test_and_set(&told)) pause();
    if (isatty(STDERR_FILENO)) say("\r\x1b[K"); /* a progress bar */
    say("cca: ");
    say(name);
    say(": cannot be read any more: it became shorter, or its disk fails\n");
    cca_whole_abandon();
    _exit(CCA_BAD_MODEL);
}

void signals_install(void) {
    static const int ends[] = {SIGHUP, SIGQUIT};
    struct sigaction before, action = {.sa_handler = on_stop};
    /* No SA_RESTART: a read must end, too. */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = on_end;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        bool ignored = sigaction(ends[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN;
        if (!ignored) sigaction(ends[i], &action, NULL); /* nohup */
    }
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL); /* a file at its limit is a failed write */
    struct sigaction bus = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigfillset(&bus.sa_mask);
    sigaction(SIGBUS, &bus, NULL);

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
    if (cca_stop_asked(&stop_signal) == SIGINT) cca_stop_set(&stop_signal, 0);
}

static void on_interrupt(int number) {
    if (!cca_stop_asked(&stop_signal)) cca_stop_set(&stop_signal, number);
}

void signals_outlive(void) {
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

static volatile sig_atomic_t suspend_asked, continued;

static void on_suspend(int number) {
    if (number == SIGTSTP) suspend_asked = 1;
    if (number == SIGCONT) continued = 1;
}

static bool take(volatile sig_atomic_t *flag) {
    bool was = *flag != 0;
    *flag = 0;
    return was;
}

bool signals_suspend_asked(void) {
    return take(&suspend_asked);
}

bool signals_continued(void) {
    return take(&continued);
}

void signals_hold_suspend(bool hold) {
    struct sigaction before, action = {.sa_handler = hold ? on_suspend : SIG_DFL};
    sigemptyset(&action.sa_mask);
    sigaction(SIGCONT, &action, NULL);
    bool ignored = sigaction(SIGTSTP, NULL, &before) == 0 && before.sa_handler == SIG_IGN;
    if (!ignored) sigaction(SIGTSTP, &action, NULL);
    if (!hold && signals_suspend_asked()) raise(SIGTSTP);
}

void signals_suspend(void) {
    signals_hold_suspend(false);
    raise(SIGTSTP);
    signals_hold_suspend(true);
    continued = 1;
}

bool signals_status_asked(void) {
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    return sigtimedwait(&usr1, NULL, &(struct timespec){0}) == SIGUSR1;
}
