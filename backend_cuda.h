/* What of the CUDA backend its tests need beside backend.h.
 *
 *     cca_backend *b;
 *     cca_backend_cuda_with(&b, 0, &options, &(cca_cuda_forms){.wgmma = true}, &err); */
#ifndef CCA_BACKEND_CUDA_H
#define CCA_BACKEND_CUDA_H

#include "backend.h"

/* Forms for Hopper that are off until they were checked and timed on one. */
typedef struct cca_cuda_forms {
    bool wgmma; /* attention of cca_cuda_sm90.cu */
    bool early; /* kernels are put in place while the one before still runs */
} cca_cuda_forms;

/* cca_backend_cuda with these. */
cca_status cca_backend_cuda_with(cca_backend **out, int device, const cca_backend_options *options,
                                 const cca_cuda_forms *forms, cca_error *err);

#endif
