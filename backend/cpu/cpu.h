/* What of the CPU backend its tests and the engine's facts need beside backend.h.
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

enum {
    CCA_CPU_DEPTH = 512,    /* columns of a panel of weights: it stays in the L2 cache */
    CCA_CPU_ALIGNMENT = 64, /* of all memory, in bytes */
};

/* Bytes that the backend comes to keep for itself while it computes such layers: scratch memory of
 * its threads, and operands (beside.c). */
size_t cca_cpu_kept(const cca_kernels *k, int n_threads, const cca_layer_sizes *sizes);

/* Operations of the table (gather.c). */
void cca_cpu_gather(cca_backend *b, const cca_rows *out, const cca_rows *in,
                    const cca_choice *choice, int64_t n_tiles);
void cca_cpu_renew(cca_backend *b, const cca_kept *kept, const cca_rows *in,
                   const cca_choice *choice, int64_t n_known);

#endif
