/* The part of the selftest that compares one kernel variant with the plain one.
 *
 *     cca_kernels_check(cca_kernels_best(), show, NULL, &err);
 *
 * Apart from self_check.h so that a test can hand in a table with a fault. */
#ifndef CCA_KERNEL_CHECK_H
#define CCA_KERNEL_CHECK_H

#include "backend/cpu/kernels.h"
#include "check/check.h"

/* CCA_CHECK_FAILED where a check did not pass, CCA_NO_MEMORY. */
cca_status cca_kernels_check(const cca_kernels *kernels, cca_check_fn on_check, void *user,
                             cca_error *err);

#endif
