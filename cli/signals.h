/* Signals: the first SIGINT or SIGTERM asks the work to stop, the second leaves at once with
 * 128 + its number, and without temporary files, as do SIGHUP and SIGQUIT; SIGPIPE and SIGXFSZ are
 * ignored so that writing reports them; SIGUSR1 asks for a status line. SIGBUS, which reading a
 * mapped file raises when it became shorter, is CCA_BAD_MODEL and names the file. */
#ifndef CCA_CLI_SIGNALS_H
#define CCA_CLI_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/* Before any thread is made. */
void signals_install(void);

/* 0, or the number of the signal that asked to stop; the address is what the engine polls. */
const volatile sig_atomic_t *signals_stop(void);

/* Whoever goes on after an interruption forgets it; a SIGTERM is not forgotten. */
void signals_forget(void);
/* From now on no number of SIGINTs ends the process: each stops the work under way, no more. */
void signals_outlive(void);

/* While held, Ctrl-Z (SIGTSTP) waits to be asked for, so that the terminal can be given back before
 * signals_suspend, which returns when the process goes on. A SIGTSTP that is ignored stays so. */
void signals_hold_suspend(bool hold);
bool signals_suspend_asked(void);
void signals_suspend(void);
/* Whether the process was stopped, and goes on, since the last call; known while held. */
bool signals_continued(void);

/* Whether SIGUSR1 came since the last call. */
bool signals_status_asked(void);

#endif
