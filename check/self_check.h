/* Checks this build on this machine: each kernel variant against the plain one, and a model run in
 * ways that must agree.
 *
 *     static void show(void *user, const cca_check *c) { puts(c->name); }
 *
 *     cca_selftest_options o = {.model = "model.gguf"};
 *     cca_status status = cca_selftest(&o, show, NULL, &err);   // CCA_CHECK_FAILED: see the checks
 */
#ifndef CCA_SELF_CHECK_H
#define CCA_SELF_CHECK_H

#include "check/check.h"

#include <signal.h>

typedef struct cca_selftest_options {
    const char *model;                 /* file; NULL: kernels only */
    const char *device;                /* compared with the CPU; NULL, "auto": a GPU if there is */
    int n_threads;                     /* 0: one a physical core */
    const volatile sig_atomic_t *stop; /* may be NULL */
} cca_selftest_options;

/* Some seconds with a small model. CCA_CHECK_FAILED where a check did not pass, CCA_BAD_MODEL,
 * CCA_NO_MEMORY, CCA_INTERRUPTED; CCA_USAGE or CCA_RUNTIME for a device that was named and is not
 * there. */
cca_status cca_selftest(const cca_selftest_options *options, cca_check_fn on_check, void *user,
                        cca_error *err);

#endif
