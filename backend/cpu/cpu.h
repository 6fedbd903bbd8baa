/* What of the CPU backend its tests, the engine's facts and other devices need beside backend.h.
 *
 *     cca_backend *plain;
 *     cca_backend_cpu_with(&plain, &options, cca_kernels_find("plain"), &err); */
#ifndef CCA_BACKEND_CPU_H
#define CCA_BACKEND_CPU_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

/* cca_backend_cpu with a given kernel variant. */
cca_status cca_backend_cpu_with(cca_backend **out, const cca_backend_options *options,
                                const cca_kernels *kernels, cca_error *err);

/* cca_attend_mass for a device that has no operation of its own: the keys are copied to host
 * memory, which is slow. */
void cca_mass_on_host(cca_backend *b, const cca_mass *mass, const cca_spans *spans,
                      const cca_matrix *q, int64_t row, int64_t pos);

/* Physical cores among those that this process may run on; at least 1. */
int cca_cpu_physical_cores(void);

#endif
